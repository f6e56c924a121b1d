//! Counters that replicas share: one key for each, one script for each question, Redis' own clock.
//!
//! * A *log* holds the times of what was allowed within a period, as the local one does.
//! * A *bucket* is the generic cell rate algorithm's moment when all is forgiven, and how many of what was counted are
//!   still being checked.
//!
//! A script takes one key, so that a Cluster can run it, and reads no more of it than such a key has: whoever writes
//! something else there makes it begin anew. Times are in microseconds since 1970; what lies in the future, because a
//! clock was put back, counts as now. Names say nothing, see [`Keys::counter`].

use crate::cache::redis::link::Away;
use crate::cache::redis::{Keys, SharedCache};
use ::redis::{Cmd, Value, cmd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Times of a log; those of a larger rate are not shared.
pub const LOG_TIMES_MAX: u32 = 1000;

/// DRF 3.18, `SimpleRateThrottle.allow_request`. Times are 16 digits each, the oldest first. Takes the number and the
/// period; yields whether it was recorded, how many there are, and how old the oldest is (-1: there is none).
const LOG: &str = "\
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local count, period = tonumber(ARGV[1]), tonumber(ARGV[2])
local seen = redis.pcall('GETRANGE', KEYS[1], 0, 16 * 1000)
if type(seen) == 'table' or #seen % 16 ~= 0 or #seen > 16 * 1000 or not string.find(seen, '^%d*$') then seen = '' end
local function at(place) return tonumber(string.sub(seen, 16 * place + 1, 16 * place + 16)) end
local function text(time) return string.format('%016.0f', time) end
local mended = false
if seen ~= '' and at(#seen / 16 - 1) > now then
  seen = string.gsub(seen, '%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d', function(one)
    if tonumber(one) > now then return text(now) end
  end)
  mended = true
end
local old = 0
while old < #seen / 16 and at(old) <= now - period do old = old + 1 end
seen = string.sub(seen, 16 * old + 1)
local held = #seen / 16
local oldest = -1
if held > 0 then oldest = now - at(0) end
local allowed = 0
if held < count then
  seen = seen .. text(now)
  allowed = 1
end
if allowed == 1 or mended then
  local set = redis.pcall('SET', KEYS[1], seen, 'PX', math.ceil(period / 1000))
  if set.err then return set end
end
return {allowed, held, oldest}";

/// Takes what is to be done, the interval of one (microseconds) and how many there may be. Yields whether it was done,
/// how far ahead of now the moment is, and how many are pending.
const BUCKET: &str = "\
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local act, interval, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local seen = redis.pcall('GETRANGE', KEYS[1], 0, 40)
local moment, pending = 0, 0
if type(seen) == 'string' then
  local first, second = string.match(seen, '^(%d+) (%d+)$')
  if first then moment, pending = tonumber(first), math.min(tonumber(second), count) end
end
local ahead = math.min(math.max(moment - now, 0), interval * count)
if ahead == 0 then pending = 0 end
if act == 'look' then return {1, ahead, pending} end
if act == 'try' or act == 'add' then
  if ahead > interval * (count - 1) then return {0, ahead, pending} end
  ahead = ahead + interval
end
if act == 'try' then pending = pending + 1 end
if act == 'back' then ahead = math.max(ahead - interval, 0) end
if act == 'back' or act == 'keep' then pending = math.max(pending - 1, 0) end
if ahead == 0 then
  local gone = redis.pcall('DEL', KEYS[1])
  if type(gone) == 'table' then return gone end
else
  local text = string.format('%.0f %.0f', now + ahead, pending)
  local set = redis.pcall('SET', KEYS[1], text, 'PX', math.ceil(ahead / 1000))
  if set.err then return set end
end
return {1, ahead, pending}";

/// What a log says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// It is within the rate, and recorded.
    pub is_within: bool,
    /// How many there were before it.
    pub held: u32,
    /// The age of the oldest of them.
    pub oldest: Option<Duration>,
}

/// What is to be done with a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing: only look.
    Look,
    /// Counts one that is being checked, if there is room.
    Try,
    /// Counts one, if there is room.
    Add,
    /// What was tried stays counted, and is not being checked any more.
    Keep,
    /// What was tried is not counted any more.
    GiveBack,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Try => "try",
            Self::Add => "add",
            Self::Keep => "keep",
            Self::GiveBack => "back",
        }
    }
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// It was done; otherwise there was no room.
    pub is_done: bool,
    /// How long until all of it is forgiven.
    pub ahead: Duration,
    /// How many of it are being checked, here or elsewhere.
    pub pending: u32,
}

impl SharedCache {
    /// One request, in the log of this name: recorded if fewer than `count` were within the last `period`.
    ///
    /// # Errors
    /// If Redis gives no answer, or none that makes sense.
    ///
    /// # Cancel safety
    /// When dropped, it may have been recorded.
    pub async fn log(&self, name: &[u8], count: u32, period: Duration) -> Result<Logged, Away> {
        let count = count.min(LOG_TIMES_MAX);
        let mut ask = script(LOG, &self.keys, name);
        ask.arg(count).arg(microseconds(period));
        let [is_within, held, oldest] = self.count("throttle", &ask).await?;
        let logged = Logged {
            is_within: is_within == 1,
            held: u32::try_from(held).map_err(|_| Away::Strange)?,
            oldest: u64::try_from(oldest).ok().map(Duration::from_micros),
        };
        let is_possible = logged.held <= LOG_TIMES_MAX
            && logged.is_within == (logged.held < count)
            && logged.oldest.is_some() == (logged.held > 0)
            && logged.oldest.is_none_or(|age| age < period);
        if is_possible { Ok(logged) } else { Err(Away::Strange) }
    }

    /// Does something with the bucket of this name, which leaks one each `interval` and holds `count`.
    ///
    /// # Errors
    /// If Redis gives no answer, or none that makes sense.
    ///
    /// # Cancel safety
    /// When dropped, it may have been done.
    pub async fn bucket(
        &self,
        name: &[u8],
        interval: Duration,
        count: u32,
        act: Act,
    ) -> Result<Bucket, Away> {
        // A script that divides time more finely would count nothing.
        let interval = microseconds(interval).max(1);
        let mut ask = script(BUCKET, &self.keys, name);
        ask.arg(act.word()).arg(interval).arg(count);
        let [is_done, ahead, pending] = self.count("guard", &ask).await?;
        let ahead = u64::try_from(ahead).map_err(|_| Away::Strange)?;
        let is_possible = ahead <= interval.saturating_mul(u64::from(count));
        let pending = u32::try_from(pending).ok().filter(|_| is_possible).ok_or(Away::Strange)?;
        Ok(Bucket { is_done: is_done == 1, ahead: Duration::from_micros(ahead), pending })
    }

    /// The three numbers that each script yields; the first is 0 or 1.
    async fn count(&self, operation: &'static str, ask: &Cmd) -> Result<[i64; 3], Away> {
        let answer = self.metrics.measure(operation, async {
            match self.link.ask(ask).await? {
                Value::Array(answer) => numbers(&answer).ok_or(Away::Strange),
                _ => Err(Away::Strange),
            }
        });
        let answer = answer.await;
        if let Err(Away::Refused(error)) = &answer
            && !self.is_refusal_told.swap(true, Ordering::Relaxed)
        {
            // It stays so until somebody does something about it, and nothing else shows it.
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "Redis refuses to count, so each replica counts for itself: may its user run all of these commands?"
            );
        }
        answer
    }
}

fn numbers(answer: &[Value]) -> Option<[i64; 3]> {
    match answer {
        [Value::Int(done @ (0 | 1)), Value::Int(second), Value::Int(third)] => Some([*done, *second, *third]),
        _ => None,
    }
}

fn script(text: &str, keys: &Keys, name: &[u8]) -> Cmd {
    let mut ask = cmd("EVAL");
    ask.arg(text).arg(1).arg(keys.counter(name));
    ask
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
