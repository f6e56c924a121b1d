//! `[limits]`: a bound for everything a client, an upstream or the store could make grow.
//!
//! All in one place, so that one can see that nothing is without a bound. The ranges keep values out that could only
//! be slips.

use std::time::Duration;

use crate::config::problem::Problems;
use crate::config::raw;
use crate::config::value::{Count, Entry, Size, within};

/// Bounds of sizes, numbers and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's header section at most.
    pub header_bytes: usize,
    /// Fields in a request's header section at most.
    pub header_count: usize,
    /// Bytes of a request's target at most.
    pub target_bytes: usize,
    /// How long a client may take to send a header section.
    pub header_time: Duration,
    /// How long a TLS handshake may take.
    pub handshake_time: Duration,
    /// How long a client may send nothing of a body it announced.
    pub body_idle: Duration,
    /// Bytes a second that a client must send of its body, over all the time that it is waited for and after
    /// `body_idle` of it; 0: no matter how slow.
    pub body_rate: usize,
    /// How long a client may read nothing of its answer.
    pub send_idle: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Connections of all clients at most.
    pub connections: usize,
    /// Connections of one client address at most.
    pub connections_per_address: usize,
    /// HTTP/2 streams of one connection at most.
    pub streams_per_connection: u32,
    /// Bytes of the header section of an upstream's answer at most.
    pub upstream_header_bytes: usize,
    /// Bytes of a refused request's body that are read and thrown away, so that the refusal arrives.
    pub unread_body: usize,
    /// How long such a body is read.
    pub unread_body_time: Duration,
    /// Requests that wait for the store at most.
    pub store_pending: usize,
    /// How long the store may take.
    pub store_time: Duration,
    /// Passwords that wait to be checked at most.
    pub password_queue: usize,
    /// Bytes for the counters of throttles and guards at most, all together.
    pub throttle_bytes: usize,
    /// How long open requests may take when stopping.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 10,
            header_count: 100,
            target_bytes: 8 << 10,
            header_time: Duration::from_secs(10),
            handshake_time: Duration::from_secs(10),
            body_idle: Duration::from_secs(20),
            body_rate: 100,
            send_idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            connections: 10_000,
            connections_per_address: 1000,
            streams_per_connection: 100,
            upstream_header_bytes: 64 << 10,
            unread_body: 1 << 20,
            unread_body_time: Duration::from_secs(2),
            store_pending: 1024,
            store_time: Duration::from_secs(2),
            password_queue: 64,
            throttle_bytes: 64 << 20,
            drain_time: Duration::from_secs(30),
        }
    }
}

impl Limits {
    pub(super) fn from_raw(raw: &raw::Limits, problems: &mut Problems) -> Self {
        let default = Self::default();
        let mut read = Reader { problems };
        Self {
            header_bytes: read.size(
                raw.header_bytes.as_ref(),
                default.header_bytes,
                (4 << 10, 1 << 20),
                "header_bytes",
            ),
            header_count: read.count(
                raw.header_count.as_ref(),
                default.header_count,
                (10, 1000),
                "header_count",
            ),
            target_bytes: read.size(
                raw.target_bytes.as_ref(),
                default.target_bytes,
                (256, 64 << 10),
                "target_bytes",
            ),
            header_time: read.seconds(raw.header_time.as_ref(), default.header_time, (1, 300), "header_time"),
            handshake_time: read.seconds(
                raw.handshake_time.as_ref(),
                default.handshake_time,
                (1, 300),
                "handshake_time",
            ),
            body_idle: read.seconds(raw.body_idle.as_ref(), default.body_idle, (1, 3600), "body_idle"),
            body_rate: read.size(raw.body_rate.as_ref(), default.body_rate, (0, 1 << 20), "body_rate"),
            send_idle: read.seconds(raw.send_idle.as_ref(), default.send_idle, (1, 3600), "send_idle"),
            keep_alive: read.seconds(raw.keep_alive.as_ref(), default.keep_alive, (1, 3600), "keep_alive"),
            connections: read.count(
                raw.connections.as_ref(),
                default.connections,
                (1, 1_000_000),
                "connections",
            ),
            connections_per_address: read.count(
                raw.connections_per_address.as_ref(),
                default.connections_per_address,
                (1, 1_000_000),
                "connections_per_address",
            ),
            streams_per_connection: read.small_count(
                raw.streams_per_connection.as_ref(),
                default.streams_per_connection,
                (1, 1000),
                "streams_per_connection",
            ),
            upstream_header_bytes: read.size(
                raw.upstream_header_bytes.as_ref(),
                default.upstream_header_bytes,
                (4 << 10, 1 << 20),
                "upstream_header_bytes",
            ),
            unread_body: read.size(
                raw.unread_body.as_ref(),
                default.unread_body,
                (0, 64 << 20),
                "unread_body",
            ),
            unread_body_time: read.millis(
                raw.unread_body_time.as_ref(),
                default.unread_body_time,
                (0, 60_000),
                "unread_body_time",
            ),
            store_pending: read.count(
                raw.store_pending.as_ref(),
                default.store_pending,
                (1, 1_000_000),
                "store_pending",
            ),
            store_time: read.millis(raw.store_time.as_ref(), default.store_time, (100, 60_000), "store_time"),
            password_queue: read.count(
                raw.password_queue.as_ref(),
                default.password_queue,
                (1, 100_000),
                "password_queue",
            ),
            throttle_bytes: read.size(
                raw.throttle_bytes.as_ref(),
                default.throttle_bytes,
                (1 << 20, 16 << 30),
                "throttle_bytes",
            ),
            drain_time: read.seconds(raw.drain_time.as_ref(), default.drain_time, (0, 3600), "drain_time"),
        }
    }
}

/// Reads values of each kind; ranges are pairs of the least and the most.
#[derive(Debug)]
struct Reader<'a> {
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn size(
        &mut self,
        entry: Option<&Entry<Size>>,
        default: usize,
        range: (usize, usize),
        key: &str,
    ) -> usize {
        within(entry, Size(default), Size(range.0)..=Size(range.1), key, self.problems).0
    }

    fn count(
        &mut self,
        entry: Option<&Entry<Count>>,
        default: usize,
        range: (usize, usize),
        key: &str,
    ) -> usize {
        within(entry, Count(default), Count(range.0)..=Count(range.1), key, self.problems).0
    }

    fn small_count(
        &mut self,
        entry: Option<&Entry<Count>>,
        default: u32,
        range: (usize, usize),
        key: &str,
    ) -> u32 {
        entry.map_or(default, |entry| {
            let count = self.count(Some(entry), range.0, range, key);
            u32::try_from(count).unwrap_or(default)
        })
    }

    fn millis(
        &mut self,
        entry: Option<&Entry<Duration>>,
        default: Duration,
        range: (u64, u64),
        key: &str,
    ) -> Duration {
        let range = Duration::from_millis(range.0)..=Duration::from_millis(range.1);
        within(entry, default, range, key, self.problems)
    }

    fn seconds(
        &mut self,
        entry: Option<&Entry<Duration>>,
        default: Duration,
        range: (u64, u64),
        key: &str,
    ) -> Duration {
        self.millis(entry, default, (range.0 * 1000, range.1 * 1000), key)
    }
}
