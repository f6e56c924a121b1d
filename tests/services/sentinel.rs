//! A Redis primary with replicas, and three Sentinels that replace it.

use super::redis::{Redis, RedisOptions, catch_up, replicates};
use super::refusing::RefusingPort;
use super::until;

/// What the Sentinels call the primary.
pub(crate) const NAME: &str = "doorward";

const SENTINELS: usize = 3;
const REPLICAS: usize = 2;

/// Data servers and their Sentinels.
#[derive(Debug)]
pub(crate) struct RedisSentinel {
    /// The first primary, then its replicas.
    servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

impl RedisSentinel {
    /// One primary with two replicas in step, known to three Sentinels who know each other.
    pub(crate) fn start() -> Self {
        let options = RedisOptions {
            more: "repl-diskless-sync-delay 0\nrepl-ping-replica-period 1",
            ..RedisOptions::default()
        };
        let mut servers = vec![Redis::start_with(options)];
        let of = format!("replicaof 127.0.0.1 {}\n", servers[0].port());
        servers.extend((0..REPLICAS).map(|_| Redis::start_at(RefusingPort::new(), options, &of, &[])));
        for replica in &servers[1..] {
            until("a replica", || replicates(replica, "master_link_status", "up").then_some(()));
        }
        let ports: Vec<RefusingPort> = (0..SENTINELS).map(|_| RefusingPort::new()).collect();
        let numbers: Vec<u16> = ports.iter().map(|port| port.address.port()).collect();
        let replicas: Vec<u16> = servers[1..].iter().map(|replica| replica.port()).collect();
        let start = |(place, port)| {
            let lines = watching(servers[0].port(), &replicas, &numbers, place);
            Redis::start_at(port, RedisOptions::default(), &lines, &["--sentinel"])
        };
        let sentinels = ports.into_iter().enumerate().map(start).collect();
        let group = Self { servers, sentinels };
        until("Sentinels that can replace the primary", || group.is_watched().then_some(()));
        group
    }

    /// Of every Sentinel.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// A connection to whom the Sentinels call the primary.
    pub(crate) fn connection(&self) -> redis::Connection {
        self.primary().connection()
    }

    /// Whom the Sentinels call the primary, unless they are about to change it.
    pub(crate) fn primary(&self) -> &Redis {
        let port = self.named(0);
        self.servers.iter().find(|server| Some(server.port()) == port).unwrap()
    }

    /// The server at this place: the first primary is the first.
    pub(crate) fn server(&mut self, place: usize) -> &mut Redis {
        &mut self.servers[place]
    }

    /// Kills the primary, whose replicas have all that was written; another one serves, and all Sentinels say so, when this returns.
    pub(crate) fn fail_over(&mut self) {
        let old = self.primary().port();
        for replica in self.servers.iter().filter(|server| server.port() != old) {
            catch_up(self.primary(), replica);
        }
        self.servers.iter_mut().find(|server| server.port() == old).unwrap().kill();
        let new = until("a new primary", || self.named(0).filter(|port| *port != old));
        let heir = self.servers.iter().find(|server| server.port() == new).unwrap();
        until("Sentinels that agree, and a primary that knows", || {
            let is_agreed = (0..SENTINELS).all(|place| self.named(place) == Some(new));
            (is_agreed && replicates(heir, "role", "master")).then_some(())
        });
    }

    /// Starts the killed one at this port again, as a replica; the Sentinels can make it the primary when this returns.
    pub(crate) fn come_back(&mut self, port: u16) {
        let primary = self.primary().port();
        let back = self.servers.iter_mut().find(|server| server.port() == port).unwrap();
        back.restart();
        // The Sentinels would do so after ten seconds.
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary).exec(&mut back.connection()).unwrap();
        until("a replica that is known", || self.is_watched().then_some(()));
    }

    fn named(&self, place: usize) -> Option<u16> {
        let mut connection = self.sentinels[place].connection();
        let mut asking = redis::cmd("SENTINEL");
        let named: (String, String) =
            asking.arg("GET-MASTER-ADDR-BY-NAME").arg(NAME).query(&mut connection).ok()?;
        named.1.parse().ok()
    }

    fn is_watched(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let mut connection = sentinel.connection();
            let mut ask = |what: &str| redis::cmd("SENTINEL").arg(what).arg(NAME).query(&mut connection);
            let has_quorum =
                ask("CKQUORUM").is_ok_and(|answer| matches!(answer, redis::Value::SimpleString(_)));
            let replicas: Vec<Vec<String>> = redis::from_redis_value(ask("REPLICAS").unwrap()).unwrap();
            // A replica that was not yet looked at cannot be promoted.
            let is_known = |replica: &Vec<String>| {
                let value =
                    |name: &str| replica.iter().skip_while(|word| *word != name).nth(1).map(String::as_str);
                value("flags") == Some("slave") && value("master-link-status") == Some("ok")
            };
            has_quorum && replicas.len() == REPLICAS && replicas.iter().all(is_known)
        })
    }
}

/// Configuration of the Sentinel at this place. It knows everybody from the start: finding out takes seconds.
fn watching(primary: u16, replicas: &[u16], sentinels: &[u16], place: usize) -> String {
    let id = |place: usize| format!("{:040x}", place + 1);
    let mut lines = vec![
        format!("myid {}", id(place)),
        format!("monitor {NAME} 127.0.0.1 {primary} 2"),
        // Milliseconds. Long enough for a busy machine.
        format!("down-after-milliseconds {NAME} 700"),
        format!("failover-timeout {NAME} 5000"),
    ];
    lines.extend(replicas.iter().map(|port| format!("known-replica {NAME} 127.0.0.1 {port}")));
    let others = sentinels.iter().enumerate().filter(|(other, _)| *other != place);
    lines.extend(others.map(|(other, port)| format!("known-sentinel {NAME} 127.0.0.1 {port} {}", id(other))));
    lines.insert(0, String::new());
    lines.join("\nsentinel ") + "\n"
}
