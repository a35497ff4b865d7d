//! Options of `phase` and `bind`.

use clap::{Args as ClapArgs, ValueEnum};

use crate::control::Request;
use crate::model::{Bytes, ClassName};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Addressee {
    /// Name of the container
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) id: String,
    /// Namespace of containerd, `moby` for Docker, if several have a container of that name
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) namespace: Option<String>,
}

/// A moment in the life of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Edge {
    /// A request begins
    Begin,
    /// It ends
    End,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Phase {
    #[command(flatten)]
    pub(in crate::cli) container: Addressee,
    /// What happens now
    #[arg(value_enum, value_name = "PHASE")]
    edge: Edge,
    /// `begin` only: size of the input, with an optional unit such as 64k
    #[arg(long, value_name = "BYTES")]
    input_bytes: Option<Bytes>,
    /// `begin` only: input class
    #[arg(long, value_name = "NAME")]
    class: Option<ClassName>,
}

impl Phase {
    /// What is to be said.
    ///
    /// # Errors
    /// What is wrong with the options, for the user.
    pub(in crate::cli) fn request(&self) -> Result<Request, String> {
        match self.edge {
            Edge::Begin => Ok(Request::Begin {
                input: self.input_bytes,
                class: self.class.clone(),
            }),
            Edge::End if self.input_bytes.is_some() || self.class.is_some() => {
                Err("--input-bytes and --class belong to begin".to_owned())
            }
            Edge::End => Ok(Request::End),
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Bind {
    #[command(flatten)]
    pub(in crate::cli) container: Addressee,
    /// Name of the function; it belongs to the namespaces of the container
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    function: String,
    /// Input class
    #[arg(long, value_name = "NAME")]
    class: Option<ClassName>,
}

impl Bind {
    /// What is to be said.
    pub(in crate::cli) fn request(&self) -> Request {
        Request::Bind {
            function: self.function.clone(),
            class: self.class.clone(),
        }
    }
}
