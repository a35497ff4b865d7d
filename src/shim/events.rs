//! Events for containerd: one queue, so that they arrive in the order in which things happened.
//!
//! While containerd is away they wait; it asks for the state of every container when it comes back, and
//! then receives what it missed.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::{topics, ttrpc};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// Events kept while containerd is away; beyond that the oldest state is known to it by asking anyway.
const CAPACITY: usize = 4096;
/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between attempts to reach containerd, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Where the events of a namespace are put.
#[derive(Debug)]
pub(super) struct Queue {
    namespace: String,
    sender: mpsc::UnboundedSender<Envelope>,
    /// How many events have not been delivered.
    waiting: Arc<watch::Sender<usize>>,
}

/// An event with the topic that containerd's clients filter by.
pub(super) trait Event: Message {
    const TOPIC: &'static str;
}

macro_rules! topics {
    ($($event:ty => $topic:ident),* $(,)?) => {
        $(impl Event for $event {
            const TOPIC: &'static str = topics::$topic;
        })*
    };
}

topics! {
    TaskCreate => TASK_CREATE_EVENT_TOPIC,
    TaskStart => TASK_START_EVENT_TOPIC,
    TaskOOM => TASK_OOM_EVENT_TOPIC,
    TaskExit => TASK_EXIT_EVENT_TOPIC,
    TaskDelete => TASK_DELETE_EVENT_TOPIC,
    TaskExecAdded => TASK_EXEC_ADDED_EVENT_TOPIC,
    TaskExecStarted => TASK_EXEC_STARTED_EVENT_TOPIC,
    TaskPaused => TASK_PAUSED_EVENT_TOPIC,
    TaskResumed => TASK_RESUMED_EVENT_TOPIC,
}

impl Queue {
    /// Starts the delivery to containerd's ttrpc socket.
    pub(super) fn start(namespace: &str, address: String) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(watch::Sender::new(0));
        tokio::spawn(deliver(receiver, address, Arc::clone(&waiting)));
        Self {
            namespace: namespace.to_owned(),
            sender,
            waiting,
        }
    }

    /// Appends an event.
    pub(super) fn push<E: Event>(&self, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(err) => {
                tracing::error!(%err, topic = E::TOPIC, "event not encoded");
                return;
            }
        };
        let envelope = Envelope {
            timestamp: MessageField::some(super::process::now()),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(Any {
                // containerd's type URLs have no host.
                type_url: format!("containerd.events.{}", E::NAME),
                value,
                ..Any::default()
            }),
            ..Envelope::default()
        };
        if *self.waiting.borrow() >= CAPACITY {
            tracing::error!(
                topic = E::TOPIC,
                "event dropped: containerd does not take events"
            );
            return;
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        // The other end lives as long as the event loop.
        let _ = self.sender.send(envelope);
    }

    /// Waits until everything that was put in is delivered, at most `patience`.
    pub(super) async fn drained(&self, patience: Duration) {
        let mut waiting = self.waiting.subscribe();
        let none = waiting.wait_for(|waiting| *waiting == 0);
        if timeout(patience, none).await.is_err() {
            tracing::warn!("events left undelivered");
        }
    }
}

async fn deliver(
    mut queue: mpsc::UnboundedReceiver<Envelope>,
    address: String,
    waiting: Arc<watch::Sender<usize>>,
) {
    let mut client: Option<EventsClient> = None;
    while let Some(envelope) = queue.recv().await {
        let request = ForwardRequest {
            envelope: MessageField::some(envelope),
            ..ForwardRequest::default()
        };
        let mut pause = PAUSES.0;
        loop {
            if client.is_none() {
                client = Client::connect(&address).await.ok().map(EventsClient::new);
            }
            if let Some(connected) = &client {
                let context = ttrpc::context::with_duration(PATIENCE);
                match connected.forward(context, &request).await {
                    Ok(_) => break,
                    // An answer: sending it again would not change it.
                    Err(ttrpc::Error::RpcStatus(status)) if is_final(&status) => {
                        tracing::error!(message = status.message, "event refused");
                        break;
                    }
                    Err(err) => {
                        tracing::debug!(%err, "event not delivered yet");
                        client = None;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

fn is_final(status: &ttrpc::Status) -> bool {
    use ttrpc::Code;
    !matches!(
        status.code(),
        Code::UNAVAILABLE | Code::DEADLINE_EXCEEDED | Code::CANCELLED | Code::ABORTED
    )
}
