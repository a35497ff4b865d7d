//! The price base: providers, each with values and the months from which they hold.

use rust_decimal::Decimal;

use super::tariff::{CpuRule, FreeTier, LoadPrice, MemoryRule, Tariff, TimeRule};
use super::{CatalogError, Month, schema};

macro_rules! file {
    ($id:literal) => {
        (
            concat!("built-in prices of ", $id),
            include_str!(concat!("../../data/providers/", $id, ".toml")),
        )
    };
}

/// The files of the repository's `data/providers`.
const BUILT_IN: [(&str, &str); 12] = [
    file!("aws-lambda"),
    file!("aws-lambda-arm64"),
    file!("google-cloud-functions"),
    file!("google-cloud-run"),
    file!("azure-functions"),
    file!("azure-flex"),
    file!("ibm-cloud-functions"),
    file!("ibm-code-engine"),
    file!("alibaba-function-compute"),
    file!("oracle-functions"),
    file!("cloudflare-workers"),
    file!("vercel-functions"),
];

/// From when a value holds, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The first month.
    pub from: Month,
    /// Where the value is from.
    pub source: String,
    /// What a reader should know.
    pub note: Option<String>,
    /// Whether the source leaves doubt.
    pub unconfirmed: bool,
}

/// A value with its provenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// From when it holds, and how that is known.
    pub provenance: Provenance,
    /// The value.
    pub value: T,
}

impl<T> Entry<T> {
    /// The first month in which it holds.
    pub fn from(&self) -> Month {
        self.provenance.from
    }
}

/// What is known of one offer of a provider. Each list is sorted by month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name on the command line.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Further names on the command line.
    pub aliases: Vec<String>,
    /// Where the prices hold.
    pub region: Option<String>,
    /// From when it is no longer offered.
    pub ended: Option<Provenance>,
    /// Memory sizes.
    pub memory: Vec<Entry<MemoryRule>>,
    /// Rounding of time.
    pub time: Vec<Entry<TimeRule>>,
    /// Price of memory over time.
    pub load: Vec<Entry<LoadPrice>>,
    /// USD per request.
    pub request: Vec<Entry<Decimal>>,
    /// CPU and its price.
    pub cpu: Vec<Entry<CpuRule>>,
    /// What is free, and the monthly fee.
    pub free: Vec<Entry<FreeTier>>,
}

/// The newest entry not later than `date`.
fn at<T>(entries: &[Entry<T>], date: Month) -> Option<&Entry<T>> {
    entries.iter().rev().find(|entry| entry.from() <= date)
}

impl Provider {
    /// The prices that hold in a month.
    ///
    /// # Errors
    /// [`CatalogError::NoPrice`] if they are not known, [`CatalogError::Ended`] if there is no such offer any
    /// more, [`CatalogError::Invalid`] if values of that month do not fit each other.
    pub fn tariff(&self, date: Month) -> Result<Tariff<'_>, CatalogError> {
        if let Some(ended) = self.ended.as_ref().filter(|ended| ended.from <= date) {
            return Err(CatalogError::Ended { ended: ended.from });
        }
        fn pick<'a, T>(
            entries: &'a [Entry<T>],
            date: Month,
            what: &'static str,
        ) -> Result<&'a Entry<T>, CatalogError> {
            at(entries, date).ok_or_else(|| CatalogError::NoPrice {
                date,
                what,
                first: entries.first().map(Entry::from),
            })
        }
        let memory = pick(&self.memory, date, "memory")?;
        let time = pick(&self.time, date, "time")?;
        let load = pick(&self.load, date, "load")?;
        let request = pick(&self.request, date, "request")?;
        let cpu = at(&self.cpu, date);
        let free = at(&self.free, date);
        Tariff::new(self, memory, time, load, request, cpu, free)
    }

    /// Puts what `newer` says over what is known: a table of the same month replaces, another one is added.
    fn merge(&mut self, newer: Self) {
        fn merge<T>(old: &mut Vec<Entry<T>>, newer: Vec<Entry<T>>) {
            old.retain(|entry| newer.iter().all(|other| other.from() != entry.from()));
            old.extend(newer);
            old.sort_by_key(Entry::from);
        }
        if newer.name != newer.id {
            self.name = newer.name;
        }
        self.aliases.extend(newer.aliases);
        self.region = newer.region.or(self.region.take());
        self.ended = newer.ended.or(self.ended.take());
        merge(&mut self.memory, newer.memory);
        merge(&mut self.time, newer.time);
        merge(&mut self.load, newer.load);
        merge(&mut self.request, newer.request);
        merge(&mut self.cpu, newer.cpu);
        merge(&mut self.free, newer.free);
    }
}

/// All providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    providers: Vec<Provider>,
}

impl Catalog {
    /// What is built in.
    ///
    /// # Errors
    /// None, unless a file of the repository is wrong; a test reads them all.
    pub fn built_in() -> Result<Self, CatalogError> {
        let mut catalog = Self {
            providers: Vec::new(),
        };
        for (name, text) in BUILT_IN {
            catalog.add(text, name)?;
        }
        Ok(catalog)
    }

    /// Adds the provider of a price file, or puts its values over those of the provider of that name.
    ///
    /// # Errors
    /// [`CatalogError`] with `origin`, the key and the reason.
    pub fn add(&mut self, text: &str, origin: &str) -> Result<(), CatalogError> {
        let newer = schema::parse(text, origin)?;
        let id = newer.id.clone();
        let wrong = |key: &str, reason: String| CatalogError::Invalid {
            origin: origin.to_owned(),
            key: key.to_owned(),
            reason,
        };
        let taken = self.providers.iter().find(|known| {
            let names = std::iter::once(&newer.id).chain(&newer.aliases);
            known.id != id && names.into_iter().any(|name| known.is_called(name))
        });
        if let Some(taken) = taken {
            return Err(wrong(
                "id",
                format!("a name of {id} is taken by {}", taken.id),
            ));
        }
        match self.providers.iter_mut().find(|known| known.id == id) {
            Some(known) => known.merge(newer),
            None => {
                for (table, is_empty) in [
                    ("memory", newer.memory.is_empty()),
                    ("time", newer.time.is_empty()),
                    ("load", newer.load.is_empty()),
                    ("request", newer.request.is_empty()),
                ] {
                    if is_empty {
                        return Err(wrong(
                            table,
                            "is missing; a new provider needs memory, time, load and request"
                                .to_owned(),
                        ));
                    }
                }
                self.providers.push(newer);
            }
        }
        // Values of different months have to fit each other in every month.
        let provider = self.find(&id)?;
        for date in provider.months() {
            if let Err(CatalogError::Invalid { key, reason, .. }) = provider.tariff(date) {
                return Err(wrong(&key, reason));
            }
        }
        Ok(())
    }

    /// All providers, in the order in which they were added.
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// The provider of that name.
    ///
    /// # Errors
    /// [`CatalogError::UnknownProvider`] with all names.
    pub fn find(&self, name: &str) -> Result<&Provider, CatalogError> {
        self.providers
            .iter()
            .find(|provider| provider.is_called(name))
            .ok_or_else(|| CatalogError::UnknownProvider {
                name: name.to_owned(),
                known: self
                    .providers
                    .iter()
                    .map(|p| p.id.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

impl Provider {
    fn is_called(&self, name: &str) -> bool {
        self.id == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// The months in which a value changes.
    fn months(&self) -> Vec<Month> {
        let mut months: Vec<Month> = self.memory.iter().map(Entry::from).collect();
        months.extend(self.load.iter().map(Entry::from));
        months.extend(self.cpu.iter().map(Entry::from));
        months
    }
}
