//! The server: a thread that computes, and one that talks with the network.

use crate::access::Access;
use crate::error::{Error, Result};
use crate::http::{App, NetLimits, router};
use crate::metrics::Metrics;
use crate::models::Served;
use crate::patient::Patient;
use crate::scheduler::{self, Limits};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

/// How often the server looks whether it is to end.
const PAUSE: Duration = Duration::from_millis(50);
/// Most bytes of the head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// The answer to a connection beyond the limit.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 127\r\n\r\n{\"error\":{\"message\":\"too many connections\",\"type\":\
\"server_error\",\"param\":null,\"code\":503,\"help\":\"ask again after Retry-After\"}}";

/// Refused connections that are open at a time, until their clients have read why; more wait in the system's queue.
const MOST_REFUSED: usize = 256;
/// How often the server looks whether there are fewer.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Keys of which a request needs one; none for a server that everyone who reaches it may use.
    pub keys: Vec<String>,
    /// Whether it may be reached from other machines without a key.
    pub allow_no_key: bool,
    /// Limits of the work.
    pub limits: Limits,
    /// Limits of what comes from the network.
    pub net: NetLimits,
    /// A run to show.
    pub run: Option<PathBuf>,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    models: Arc<Vec<Served>>,
    settings: Settings,
    listener: std::net::TcpListener,
}

impl Server {
    /// Listens; connections are answered by [`Server::run`].
    ///
    /// # Errors
    /// If the settings are unsafe, two models have one name, or the address cannot be used.
    pub fn bind(models: Vec<Served>, settings: Settings) -> Result<Self> {
        let bind = settings.bind;
        if !bind.ip().is_loopback() && settings.keys.is_empty() && !settings.allow_no_key {
            return Err(Error::Setting {
                place: "--bind".into(),
                expected: "an address of this machine alone, or a key that requests must have"
                    .into(),
                got: format!("{bind} without a key: everyone who can reach it could use it"),
                help:
                    "give --api-key-file FILE, or --allow-no-key if the network keeps others away"
                        .into(),
            });
        }
        for (i, served) in models.iter().enumerate() {
            if models[..i].iter().any(|other| other.name == served.name) {
                return Err(Error::Setting {
                    place: "--model".into(),
                    expected: "models of different names".into(),
                    got: format!("two that are called {}", served.name),
                    help: "name them: --model NAME=DIR".into(),
                });
            }
        }
        let io = |source| Error::Io {
            action: format!("listen on {bind}"),
            source,
            help: "choose another port with --bind 127.0.0.1:PORT",
        };
        let listener = std::net::TcpListener::bind(bind).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        Ok(Self {
            models: Arc::new(models),
            settings,
            listener,
        })
    }

    /// The address, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// If the system call fails.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|source| Error::Io {
            action: "find out the address".into(),
            source,
            help: "name a port with --bind 127.0.0.1:PORT",
        })
    }

    /// Answers until `stop` is set; then takes no more requests, and returns when those that had begun are answered.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn run(self, stop: &AtomicBool) -> Result<()> {
        let Self {
            models,
            settings,
            listener,
        } = self;
        let io = |source| Error::Io {
            action: "start".into(),
            source,
            help: "close other programs",
        };
        let (commands, receiver) = channel();
        let metrics = Arc::new(Metrics::default());
        let computing = {
            let (models, metrics) = (Arc::clone(&models), Arc::clone(&metrics));
            let limits = settings.limits;
            let thread = std::thread::Builder::new().name("models".into());
            let work = move || scheduler::run(&models, limits, &receiver, &metrics);
            thread.spawn(work).map_err(io)?
        };
        let app = Arc::new(App {
            models,
            commands,
            metrics,
            access: Access::new(&settings.keys, settings.bind.ip()),
            limits: settings.net,
            cache_bytes: settings.limits.cache_bytes,
            places: Arc::new(Semaphore::new(settings.net.requests)),
            room: Semaphore::new(settings.net.unfinished_bytes.min(Semaphore::MAX_PERMITS)),
            is_draining: AtomicBool::new(false),
            run: settings.run,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .build()
            .map_err(io)?;
        runtime.block_on(listen(&app, listener, stop)).map_err(io)?;
        // Dropping the connections that are left drops their texts, and the last sender of commands.
        drop(runtime);
        drop(app);
        let _ = computing.join();
        Ok(())
    }
}

async fn listen(
    app: &Arc<App>,
    listener: std::net::TcpListener,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (ending, end) = watch::channel(false);
    let most = app.limits.connections.saturating_add(MOST_REFUSED) as u64;
    while !stop.load(Ordering::Relaxed) {
        if app.metrics.connections.load(Ordering::Relaxed) >= most {
            sleep(SHORT_PAUSE).await;
            continue;
        }
        match timeout(PAUSE, listener.accept()).await {
            Ok(Ok((stream, _))) => open(app, stream, end.clone()),
            // Out of files, or a client that has gone again: neither ends the server.
            Ok(Err(_)) => sleep(PAUSE).await,
            Err(_) => {}
        }
    }
    drop(listener);
    app.is_draining.store(true, Ordering::Relaxed);
    let _ = ending.send(true);
    let deadline = Instant::now() + app.limits.drain;
    while app.metrics.connections.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// An open connection, counted.
struct Counted(Arc<App>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn open(app: &Arc<App>, stream: TcpStream, end: watch::Receiver<bool>) {
    let open = app.metrics.connections.fetch_add(1, Ordering::Relaxed) as usize;
    let counted = Counted(Arc::clone(app));
    // Tokens are sent one by one: none should wait for the next.
    let _ = stream.set_nodelay(true);
    if open >= app.limits.connections {
        tokio::spawn(refuse(stream, counted));
    } else {
        tokio::spawn(converse(stream, counted, end));
    }
}

async fn refuse(mut stream: TcpStream, counted: Counted) {
    let answer = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await?;
        // If a connection is closed before its request was read, the system resets it, and the client loses the answer.
        let mut discarded = [0; 512];
        while stream.read(&mut discarded).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(counted.0.limits.refusal, answer).await;
}

async fn converse(stream: TcpStream, counted: Counted, mut end: watch::Receiver<bool>) {
    let app = &counted.0;
    let io = TokioIo::new(Patient::new(stream, app.limits.write));
    let service = TowerToHyperService::new(router(app));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(app.limits.head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(io, service)
    );
    let mut ended = pin!(async move {
        // An error means that the server is gone, which is an end too.
        let _ = end.wait_for(|&is_ending| is_ending).await;
    });
    let mut is_ending = false;
    // An error of one connection does not affect the others.
    let _ = poll_fn(|cx| {
        if !is_ending && ended.as_mut().poll(cx).is_ready() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}
