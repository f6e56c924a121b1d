//! Opens connections: to the one server, to the one that sentinels name, or to the nodes of a Cluster.
//!
//! Never to a replica: it may be behind, and what is published there reaches nobody.

use crate::cache::redis::bounded::{Bounded, Credit};
use crate::cache::redis::settings::{Login, Node, Settings, Topology};
use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, ProtocolVersion,
    PushInfo, RedisConnectionInfo, RedisError, TlsCertificates, TlsMode, Value, cmd,
};
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// For the name and TCP.
const CONNECT_TIME: Duration = Duration::from_millis(250);
/// For all of a connection to one server: TLS and the greeting besides, which are four times there and back.
const OPEN_TIME: Duration = Duration::from_secs(1);
/// To learn the nodes of a Cluster, one of which may not answer.
const CLUSTER_TIME: Duration = Duration::from_secs(2);
/// Times that a call to a Cluster is sent again, because the key was moved or its node is another.
const CLUSTER_RETRIES: u32 = 3;
/// Between two of them, in milliseconds.
const CLUSTER_RETRY_WAIT: (u64, u64) = (5, 20);
/// Bytes that may come between two answers that are taken: all that callers wait for at a time.
const ANSWERS_BYTES_MAX: usize = 8 << 20;
/// The same for pushed messages, which are taken one by one.
const PUSHES_BYTES_MAX: usize = 256 << 10;
/// Entries of a list that a server may answer with; a Cluster has fewer ranges of slots.
const SLOTS: usize = 16_384;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Silent(String),
    /// The network, or TLS.
    #[error("cannot connect to {node}")]
    Unreachable {
        /// To whom.
        node: Node,
        /// Why.
        source: io::Error,
    },
    /// The server said no, or something that cannot be understood.
    #[error("{node} refuses")]
    Refused {
        /// Who.
        node: String,
        /// Why.
        source: RedisError,
    },
    /// It is a replica.
    #[error("{0} is not a primary")]
    NotPrimary(Node),
    /// No sentinel knows the service.
    #[error("no sentinel names a primary of {0}")]
    NoPrimary(String),
    /// It did not say what was asked.
    #[error("{0} gave no answer that can be understood")]
    Strange(Node),
}

/// A socket, whatever is below.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// A task that ends when nobody needs it any more.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub(super) struct One {
    node: Node,
    connection: MultiplexedConnection,
    credit: Credit,
    /// Ends with the last copy.
    _driver: Arc<Driver>,
}

impl One {
    /// Sends a command and waits for its answer, without a limit of time.
    ///
    /// # Errors
    /// If the connection is lost, or the server answers with an error.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = self.connection.req_packed_command(command).await.and_then(Value::extract_error);
        self.credit.renew();
        answer
    }

    /// Listens to a channel.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn subscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        self.connection.subscribe(channel).await
    }

    /// Asks what the server is.
    ///
    /// # Errors
    /// If it does not answer, or is a replica.
    pub(super) async fn assert_primary(&mut self) -> Result<(), DialError> {
        let refused = |source| DialError::Refused { node: self.node.to_string(), source };
        // Not ROLE, which many users may not call.
        let answer = self.connection.req_packed_command(cmd("HELLO").arg(3)).await;
        self.credit.renew();
        let answer = answer.and_then(Value::extract_error).map_err(refused)?;
        let Value::Map(answer) = answer else { return Err(DialError::Strange(self.node.clone())) };
        let role = answer.iter().find(|(key, _)| text(key) == Some("role"));
        match role.and_then(|(_, role)| text(role)) {
            Some("master") => Ok(()),
            Some(_) => Err(DialError::NotPrimary(self.node.clone())),
            None => Err(DialError::Strange(self.node.clone())),
        }
    }
}

/// What commands go over.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    One(One),
    /// To all of them.
    Cluster(ClusterConnection),
}

/// The Cluster's has none.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(one) => f.debug_tuple("One").field(&one.node).finish(),
            Self::Cluster(_) => f.write_str("Cluster"),
        }
    }
}

impl Connection {
    /// As [`One::ask`].
    ///
    /// # Errors
    /// As [`One::ask`].
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(one) => one.ask(command).await,
            Self::Cluster(cluster) => {
                cluster.req_packed_command(command).await.and_then(Value::extract_error)
            }
        }
    }
}

/// A connection for commands.
///
/// # Errors
/// If there is none.
pub(super) async fn commands(settings: &Settings) -> Result<Connection, DialError> {
    match &settings.topology {
        Topology::Cluster(nodes) => cluster(settings, nodes).await.map(Connection::Cluster),
        Topology::Single(_) | Topology::Sentinel { .. } => {
            let node = primary(settings).await?;
            open_primary(settings, &node, ANSWERS_BYTES_MAX, None::<fn(PushInfo)>).await.map(Connection::One)
        }
    }
}

/// A connection for the messages of a channel, to the primary that carries it; `pushed` is called with each, on the
/// connection's own task, and must not wait.
///
/// # Errors
/// If there is none.
pub(super) async fn pushes(
    settings: &Settings,
    channel: &str,
    pushed: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<One, DialError> {
    let node = match &settings.topology {
        Topology::Cluster(nodes) => owner(settings, nodes, channel).await?,
        Topology::Single(_) | Topology::Sentinel { .. } => primary(settings).await?,
    };
    open_primary(settings, &node, PUSHES_BYTES_MAX, Some(pushed)).await
}

/// The server that everything goes to.
async fn primary(settings: &Settings) -> Result<Node, DialError> {
    let (sentinels, service, login) = match &settings.topology {
        Topology::Single(node) => return Ok(node.clone()),
        Topology::Sentinel { sentinels, service, login } => (sentinels, service, login),
        Topology::Cluster(_) => return Err(DialError::NoPrimary(String::new())),
    };
    let mut why = None;
    let mut is_unknown = false;
    for sentinel in sentinels {
        let asked = timeout(OPEN_TIME, async {
            let greeting = greeting(login).set_protocol(ProtocolVersion::RESP2);
            let mut one =
                greet(settings, sentinel, &greeting, ANSWERS_BYTES_MAX, None::<fn(PushInfo)>).await?;
            let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service).take();
            one.ask(&question).await.map_err(|source| refused(sentinel, source))
        });
        match asked.await {
            Ok(Ok(Value::Array(address))) => match node(&address) {
                Some(node) => return Ok(node),
                None => why = Some(DialError::Strange(sentinel.clone())),
            },
            // It does not know of it; that says more than that another is not there.
            Ok(Ok(_)) => is_unknown = true,
            Ok(Err(error)) => why = Some(error),
            Err(_) => why = Some(DialError::Silent(sentinel.to_string())),
        }
    }
    let unknown = || DialError::NoPrimary(service.clone());
    Err(if is_unknown { unknown() } else { why.unwrap_or_else(unknown) })
}

/// The primary of the slot that the channel's name is in.
async fn owner(settings: &Settings, nodes: &[Node], channel: &str) -> Result<Node, DialError> {
    let mut why = None;
    for seed in nodes {
        match timeout(OPEN_TIME, ask_owner(settings, seed, channel)).await {
            Ok(Ok(node)) => return Ok(node),
            Ok(Err(error)) => why = Some(error),
            Err(_) => why = Some(DialError::Silent(seed.to_string())),
        }
    }
    Err(why.unwrap_or_else(|| DialError::NoPrimary(channel.to_owned())))
}

async fn ask_owner(settings: &Settings, seed: &Node, channel: &str) -> Result<Node, DialError> {
    let greeting = greeting(&settings.login);
    let mut one = greet(settings, seed, &greeting, ANSWERS_BYTES_MAX, None::<fn(PushInfo)>).await?;
    let refuses = |source| refused(seed, source);
    let slot = one.ask(cmd("CLUSTER").arg("KEYSLOT").arg(channel)).await.map_err(refuses)?;
    let slots = one.ask(cmd("CLUSTER").arg("SLOTS")).await.map_err(refuses)?;
    let (Value::Int(slot), Value::Array(slots)) = (slot, slots) else {
        return Err(DialError::Strange(seed.clone()));
    };
    let owner = slots.iter().take(SLOTS).find_map(|range| match range {
        Value::Array(range) => match range.as_slice() {
            [Value::Int(from), Value::Int(to), Value::Array(primary), ..] => {
                (*from..=*to).contains(&slot).then_some(primary)
            }
            _ => None,
        },
        _ => None,
    });
    let Some(owner) = owner else { return Err(DialError::NoPrimary(channel.to_owned())) };
    let mut owner = node(owner).ok_or_else(|| DialError::Strange(seed.clone()))?;
    // A node that does not know its own address means the one that it was asked at.
    if owner.host.is_empty() || owner.host == "?" {
        owner.host.clone_from(&seed.host);
    }
    Ok(owner)
}

/// Host and port, as they begin an answer.
fn node(address: &[Value]) -> Option<Node> {
    let [host, port, ..] = address else { return None };
    let host = match host {
        Value::Nil => String::new(),
        host => text(host)?.to_owned(),
    };
    let port = match port {
        Value::Int(port) => u16::try_from(*port).ok()?,
        port => text(port)?.parse().ok()?,
    };
    Some(Node { host, port })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn refused(node: &Node, source: RedisError) -> DialError {
    DialError::Refused { node: node.to_string(), source }
}

async fn open_primary(
    settings: &Settings,
    node: &Node,
    bytes_max: usize,
    pushed: Option<impl Fn(PushInfo) + Send + Sync + 'static>,
) -> Result<One, DialError> {
    let greeting = greeting(&settings.login).set_db(settings.database.into());
    let opened = timeout(OPEN_TIME, async {
        let mut one = greet(settings, node, &greeting, bytes_max, pushed).await?;
        one.assert_primary().await?;
        Ok(one)
    });
    opened.await.unwrap_or_else(|_| Err(DialError::Silent(node.to_string())))
}

/// Who we are, and that we speak RESP3, of Redis 6 and later: pushed messages and answers come over one connection.
fn greeting(login: &Login) -> RedisConnectionInfo {
    let mut greeting =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    if let Some(user) = &login.user {
        greeting = greeting.set_username(user);
    }
    if let Some(password) = &login.password {
        greeting = greeting.set_password(String::from_utf8_lossy(password.expose()));
    }
    greeting
}

async fn greet(
    settings: &Settings,
    node: &Node,
    greeting: &RedisConnectionInfo,
    bytes_max: usize,
    pushed: Option<impl Fn(PushInfo) + Send + Sync + 'static>,
) -> Result<One, DialError> {
    let socket = socket(settings, node)
        .await
        .map_err(|source| DialError::Unreachable { node: node.clone(), source })?;
    let credit = Credit::new(bytes_max);
    let bounded = Bounded::new(socket, credit.clone());
    // Times are limited by who calls.
    let mut config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    if let Some(pushed) = pushed {
        let renewed = credit.clone();
        config = config.set_push_sender(move |push| {
            renewed.renew();
            pushed(push);
            Ok::<_, ::redis::aio::SendError>(())
        });
    }
    let opened = MultiplexedConnection::new_with_config(greeting, bounded, config).await;
    let (connection, driver) = opened.map_err(|source| refused(node, source))?;
    let task = tokio::spawn(driver);
    Ok(One { node: node.clone(), connection, credit, _driver: Arc::new(Driver(task.abort_handle())) })
}

async fn socket(settings: &Settings, node: &Node) -> io::Result<Box<dyn Socket>> {
    let connecting = TcpStream::connect((node.host.as_str(), node.port));
    let tcp = timeout(CONNECT_TIME, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tcp.set_nodelay(true)?;
    let Some(tls) = &settings.tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
    Ok(Box::new(connector.connect(name, tcp).await?))
}

/// The library knows how to follow a Cluster's slots. It opens the connections to its nodes itself, so what they may
/// send is bounded by what is asked for alone.
async fn cluster(settings: &Settings, nodes: &[Node]) -> Result<ClusterConnection, DialError> {
    let names = || nodes.iter().map(Node::to_string).collect::<Vec<_>>().join(", ");
    let refused = |source| DialError::Refused { node: names(), source };
    let seeds: Result<Vec<_>, RedisError> = nodes
        .iter()
        .map(|Node { host, port }| {
            let (host, port) = (host.clone(), *port);
            let address = if settings.tls.is_some() {
                ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
            } else {
                ConnectionAddr::Tcp(host, port)
            };
            Ok(address.into_connection_info()?.set_redis_settings(greeting(&settings.login)))
        })
        .collect();
    let mut builder = ClusterClient::builder(seeds.map_err(refused)?)
        .connection_timeout(CONNECT_TIME)
        .response_timeout(settings.timeout)
        .overall_response_timeout(None)
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(CLUSTER_RETRY_WAIT.0)
        .max_retry_wait(CLUSTER_RETRY_WAIT.1);
    if let Some(trust) = &settings.tls {
        let certificates = TlsCertificates { client_tls: None, root_cert: trust.anchors_pem.clone() };
        builder = builder.tls(TlsMode::Secure).certs(certificates);
    }
    let client = builder.build().map_err(refused)?;
    match timeout(CLUSTER_TIME, client.get_async_connection()).await {
        Ok(opened) => opened.map_err(refused),
        Err(_) => Err(DialError::Silent(names())),
    }
}

/// Whether the server answered, though with an error; if not, it may do better over another connection.
pub(super) fn is_answer(error: &RedisError) -> bool {
    use ::redis::ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    match error.kind() {
        // These say that it is not the server that should be asked, or not now.
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly | TryAgain) => false,
        ErrorKind::Server(_) | ErrorKind::Extension => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn addresses_are_read_and_nothing_else() {
        let found = |host: &str, port| Some(Node { host: host.into(), port });
        assert_eq!(node(&[bulk("::1"), bulk("6379")]), found("::1", 6379));
        assert_eq!(node(&[bulk("a"), Value::Int(1), bulk("id")]), found("a", 1));
        assert_eq!(node(&[Value::Nil, Value::Int(1)]), found("", 1));
        for wrong in [
            vec![],
            vec![bulk("a")],
            vec![bulk("a"), Value::Int(65_536)],
            vec![bulk("a"), Value::Int(-1)],
            vec![bulk("a"), bulk("x")],
            vec![Value::BulkString(vec![0xff]), Value::Int(1)],
            vec![Value::Array(vec![]), Value::Int(1)],
        ] {
            assert_eq!(node(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn nodes_are_shown_as_they_are_written() {
        assert_eq!(Node { host: "::1".into(), port: 1 }.to_string(), "[::1]:1");
        assert_eq!(Node { host: "a".into(), port: 1 }.to_string(), "a:1");
    }
}
