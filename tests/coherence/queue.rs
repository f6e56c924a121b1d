//! What is going to happen, in order of time.

use crate::confirming::Confirming;
use crate::lookup::{Lease, Load};
use crate::reading::Answer;
use crate::redis::{Message, Value};
use crate::revocation::{Act, Told};
use crate::scale::{Micros, TOKENS};
use doorward::cache::change::Sequence;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One life of a replica: it may be killed and started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) replica: usize,
    pub(crate) life: u32,
}

/// Something that is going to happen.
pub(crate) enum Step {
    /// To a process; nothing if it has ended meanwhile.
    To(Life, Turn),
    /// A heartbeat is at the server.
    BeatAtServer {
        replica: usize,
        connection: u64,
        sent: Micros,
    },
    Arrives {
        replica: usize,
        connection: u64,
        message: Message,
    },
    ValueAtServer(Load),
    RowAtStore(Load),
    FillAtServer {
        replica: usize,
        server: usize,
        token: usize,
        lease: Lease,
        value: Value,
    },
    RevokeDue,
    CommitAtStore(Act),
    PublishAtServer {
        act: Act,
        told: Told,
    },
    Fault,
    SqlBack {
        replica: usize,
        spell: u64,
    },
    RedisBack {
        replica: usize,
        spell: u64,
    },
    StoreBack,
}

/// What happens to a process.
pub(crate) enum Turn {
    /// It is time to read the store, unless that was done since.
    ReadDue {
        readings: u64,
    },
    ReadAtStore {
        asked: Micros,
    },
    ReadAnswer(Box<Answer>),
    ReadFailed {
        asked: Micros,
    },
    /// A reading takes long.
    Patience {
        readings: u64,
    },
    ConfirmAtStore(Confirming),
    Confirmed {
        confirming: Confirming,
        /// `None`: no answer in time.
        good: Option<[bool; TOKENS]>,
    },
    BeatDue,
    PresenceDue,
    PresenceAtServer {
        number: u64,
        server: usize,
    },
    Connected {
        attempt: u64,
    },
    /// Somebody makes a request.
    Request,
    ValueAnswer {
        load: Load,
        value: Option<Value>,
        lease: Lease,
    },
    RowAnswer {
        load: Load,
        as_of: Sequence,
        commit: u64,
        is_good: bool,
    },
    RowFailed(Load),
    CommitAnswer {
        act: Act,
        told: Told,
    },
    PublishAnswer {
        act: Act,
        told: Told,
    },
    Acknowledge {
        act: Act,
        told: Told,
    },
}

/// What is to come; of two things at one moment the one that was put in first comes first.
#[derive(Default)]
pub(crate) struct Queue {
    order: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    /// A heap moves what it holds, so what is large lies beside it.
    steps: Vec<Option<Step>>,
    free: Vec<usize>,
    count: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Micros, step: Step) {
        let place = if let Some(place) = self.free.pop() {
            self.steps[place] = Some(step);
            place
        } else {
            self.steps.push(Some(step));
            self.steps.len() - 1
        };
        self.count += 1;
        self.order.push(Reverse((at, self.count, place)));
    }

    pub(crate) fn pop(&mut self) -> Option<(Micros, Step)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at, self.steps[place].take().unwrap()))
    }
}
