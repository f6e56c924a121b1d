//! A stretch of network between a gateway and a server that delays, cuts, swallows or garbles on demand.
//!
//! It knows bytes, no protocol, so it stands before Redis as before SQL, with TLS as without. In a thread of its own.

use super::refusing::RefusingPort;
use socket2::{Domain, SockRef, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What becomes of connections and bytes, of those that are there as of those that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Everything passes.
    None,
    /// Everything passes this much later, in either direction.
    Delay(Duration),
    /// Connections are taken and nothing passes; it passes later, once there is another fault.
    BlackHole,
    /// What is asked arrives and is done, what is answered does not come back; later it does.
    HoldAnswers,
    /// Answers of the same length in which every bit is another.
    Garbage,
    /// After so many more bytes of answers, a connection is cut.
    CutAfter(usize),
    /// Connections are cut, and new ones refused.
    Refuse,
}

impl Fault {
    fn holds(self, way: Way) -> bool {
        self == Self::BlackHole || (self == Self::HoldAnswers && way == Way::Answers)
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Questions,
    Answers,
}

/// What the test has ordered.
#[derive(Debug, Clone, Copy)]
struct Order {
    fault: Fault,
    /// How often [`FaultProxy::cut`] was called.
    cuts: u64,
    is_over: bool,
}

/// A proxy before one server.
#[derive(Debug)]
pub(crate) struct FaultProxy {
    order: watch::Sender<Order>,
    accepted: Arc<AtomicUsize>,
    target: u16,
    port: RefusingPort,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Before a server at this port of 127.0.0.1; everything passes.
    pub(crate) fn start(target: u16) -> Self {
        let order = watch::Sender::new(Order { fault: Fault::None, cuts: 0, is_over: false });
        let (port, accepted) = (RefusingPort::new(), Arc::<AtomicUsize>::default());
        let (orders, counter, address) = (order.subscribe(), Arc::clone(&accepted), port.address);
        // Connections are taken from now on.
        let listener = listen(address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread =
            std::thread::spawn(move || runtime.block_on(serve(listener, address, target, orders, counter)));
        Self { order, accepted, target, port, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.address.port()
    }

    /// A URL of the server that leads through the proxy.
    pub(crate) fn url(&self, direct: &str) -> String {
        let (target, own) = (format!(":{}/", self.target), format!(":{}/", self.port()));
        assert!(direct.contains(&target), "this URL is of another server");
        direct.replace(&target, &own)
    }

    /// From now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.order.send_modify(|order| order.fault = fault);
    }

    /// Cuts the connections that are there.
    pub(crate) fn cut(&self) {
        self.order.send_modify(|order| order.cuts += 1);
    }

    /// How many connections there have been.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.order.send_modify(|order| order.is_over = true);
        let is_good = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(is_good || std::thread::panicking(), "the proxy has failed");
    }
}

fn listen(address: SocketAddr) -> std::net::TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The port is held by a socket that does not listen.
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(1024).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

async fn serve(
    first: std::net::TcpListener,
    address: SocketAddr,
    target: u16,
    mut orders: watch::Receiver<Order>,
    accepted: Arc<AtomicUsize>,
) {
    let mut listener = Some(TcpListener::from_std(first).unwrap());
    loop {
        let order = *orders.borrow_and_update();
        if order.is_over {
            return;
        }
        if order.fault == Fault::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::from_std(listen(address)).unwrap());
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await.unwrap().0,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The test holds the other end as long as this runs.
            changed = orders.changed() => changed.unwrap(),
            client = accept => {
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(client, target, orders.clone()));
            }
        }
    }
}

async fn connection(mut client: TcpStream, target: u16, mut orders: watch::Receiver<Order>) {
    let cuts = orders.borrow().cuts;
    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await {
        for stream in [&client, &server] {
            // One that has ended already has no use for it.
            stream.set_nodelay(true).unwrap_or_default();
        }
        let is_cut = |order: &Order| order.cuts != cuts || order.fault == Fault::Refuse || order.is_over;
        let (questions, answers) = (orders.clone(), orders.clone());
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let passing = async {
            tokio::try_join!(
                pass(from_client, to_server, Way::Questions, questions),
                pass(from_server, to_client, Way::Answers, answers)
            )
        };
        tokio::select! {
            _ = orders.wait_for(is_cut) => {}
            ended = passing => if ended.is_ok() { return },
        }
        reset(&server);
    }
    reset(&client);
}

/// It will be closed by RST.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The connection is cut.
#[derive(Debug)]
struct Cut;

impl From<std::io::Error> for Cut {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// Pieces that are under way in one direction; then nothing more is read.
const PIECES: usize = 256;

/// Passes bytes on until their end, and that, too.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    mut orders: watch::Receiver<Order>,
) -> Result<(), Cut> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let seen = orders.clone();
    let read = async move {
        loop {
            let mut piece = vec![0; 16 << 10];
            let length = from.read(&mut piece).await?;
            if length == 0 {
                return Ok::<(), Cut>(());
            }
            piece.truncate(length);
            let delay = if let Fault::Delay(delay) = seen.borrow().fault { delay } else { Duration::ZERO };
            sender.send((Instant::now() + delay, piece)).await.map_err(|_| Cut)?;
        }
    };
    let write = async move {
        // Of answers, before the cut.
        let mut left = None;
        while let Some((due, mut piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            let order = *orders.wait_for(|order| !order.fault.holds(way)).await.map_err(|_| Cut)?;
            match (way, order.fault) {
                (Way::Answers, Fault::Garbage) => piece.iter_mut().for_each(|byte| *byte = !*byte),
                (Way::Answers, Fault::CutAfter(bytes)) => {
                    let before = left.unwrap_or(bytes);
                    left = Some(before.saturating_sub(piece.len()));
                    piece.truncate(before);
                }
                _ => left = None,
            }
            to.write_all(&piece).await?;
            if left == Some(0) {
                // What was written is to arrive before the cut is noticed.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Err(Cut);
            }
        }
        Ok(to.shutdown().await?)
    };
    tokio::try_join!(read, write).map(|_| ())
}
