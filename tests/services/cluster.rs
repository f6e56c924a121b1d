//! A Redis Cluster: three primaries, with a replica each if wanted, made by the commands of the protocol.

use super::redis::{Redis, RedisOptions, catch_up, info, replicates};
use super::refusing::RefusingPort;
use super::until;

/// All of them: Redis Cluster specification, "Key distribution model".
const SLOTS: u16 = 16_384;
const PRIMARIES: u16 = 3;

/// Short enough to see a failover in a test, long enough for a busy machine.
const NODE: &str = "cluster-enabled yes\ncluster-node-timeout 1000\ncluster-replica-validity-factor 0\n\
     repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n";

/// A node, and the port on which it talks to the others.
#[derive(Debug)]
struct Node {
    redis: Redis,
    bus: RefusingPort,
}

impl Node {
    fn start() -> Self {
        let bus = RefusingPort::new();
        let lines = format!("{NODE}cluster-port {}\n", bus.address.port());
        let redis = Redis::start_at(RefusingPort::new(), RedisOptions::default(), &lines, &[]);
        Self { redis, bus }
    }

    fn order(&self, words: &[&str]) -> String {
        redis::cmd("CLUSTER").arg(words).query(&mut self.redis.connection()).unwrap()
    }

    fn value(&self, field: &str) -> Option<String> {
        info(&self.redis, &["CLUSTER", "INFO"], field)
    }

    fn is(&self, field: &str, value: &str) -> bool {
        self.value(field).as_deref() == Some(value)
    }
}

/// The primaries, in the order of their slots, then their replicas in the same order.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    nodes: Vec<Node>,
}

impl RedisCluster {
    /// Three primaries, every slot served.
    pub(crate) fn start() -> Self {
        Self::of(PRIMARIES)
    }

    /// With a replica of each, that takes over after about a second.
    pub(crate) fn start_with_replicas() -> Self {
        Self::of(2 * PRIMARIES)
    }

    fn of(count: u16) -> Self {
        let nodes: Vec<Node> = (0..count).map(|_| Node::start()).collect();
        for (node, number) in nodes.iter().zip(0..) {
            // Nodes that all say 0 would have to agree first.
            node.order(&["SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < PRIMARIES {
                let [first, end] = [number, number + 1].map(|part| u32::from(part) * u32::from(SLOTS) / 3);
                node.order(&["ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]);
            }
            let port = node.redis.port().to_string();
            nodes[0].order(&["MEET", "127.0.0.1", &port, &node.bus.address.port().to_string()]);
        }
        let known = count.to_string();
        let is_whole = |node: &Node| node.is("cluster_known_nodes", &known) && node.is("cluster_state", "ok");
        until("a cluster", || nodes.iter().all(is_whole).then_some(()));
        for (primary, replica) in nodes.iter().zip(nodes.iter().skip(PRIMARIES.into())) {
            replica.order(&["REPLICATE", &primary.order(&["MYID"])]);
            until("a replica", || replicates(&replica.redis, "master_link_status", "up").then_some(()));
        }
        Self { nodes }
    }

    /// Of every node.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.redis.url()).collect()
    }

    /// A client that follows the slots.
    pub(crate) fn connection(&self) -> redis::cluster::ClusterConnection {
        redis::cluster::ClusterClient::new(self.urls()).unwrap().get_connection().unwrap()
    }

    /// The node at this place; see [`RedisCluster`].
    pub(crate) fn node(&mut self, place: usize) -> &mut Redis {
        &mut self.nodes[place].redis
    }

    /// Kills the first primary, whose replica has all that was written; the cluster serves all slots again when this returns.
    pub(crate) fn fail_over(&mut self) {
        let heir = usize::from(PRIMARIES);
        catch_up(&self.nodes[0].redis, &self.nodes[heir].redis);
        self.nodes[0].redis.kill();
        let heir = &self.nodes[heir].redis;
        until("a replica that has taken over", || replicates(heir, "role", "master").then_some(()));
        until("a cluster", || {
            self.nodes.iter().skip(1).all(|node| node.is("cluster_state", "ok")).then_some(())
        });
    }
}
