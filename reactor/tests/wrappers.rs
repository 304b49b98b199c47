//! Wrappers around streams: their own edges, from other threads too, and several of them.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use pollux_reactor::{
    Context, Edges, Group, Idle, Opened, Progress, Service, Stream, StreamWrapper, mailbox,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Is up only when another thread says so, as after a handshake that is made there.
#[derive(Debug)]
struct Handshake {
    stream: Stream,
    done: Arc<AtomicBool>,
    edges: Sender<Edges>,
}

impl StreamWrapper for Handshake {
    fn inner(&self) -> &Stream {
        &self.stream
    }

    fn inner_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn on_edges(&mut self, edges: Edges) {
        self.edges.send(edges).unwrap();
    }

    fn connected(&mut self) -> io::Result<bool> {
        Ok(self.stream.connected()? && self.done.load(Ordering::Acquire))
    }
}

/// Connects, and tells of every time that it is told to look.
struct Client {
    remote: SocketAddr,
    watched: bool,
    stream: Option<Stream>,
    looked: Sender<bool>,
}

impl Service for Client {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let mut stream = cx.net().connect(self.remote, None).unwrap();
        if self.watched {
            cx.watch(&mut stream, 9);
        }
        self.stream = Some(stream);
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut look = !self.watched;
        while let Some(token) = cx.next_ready() {
            assert_eq!(token, 9);
            look = true;
        }
        let stream = self.stream.as_mut().unwrap();
        if look {
            let up = stream.connected().unwrap();
            stream.take_ready();
            let _ = self.looked.send(up);
        }
        Progress::Idle
    }
}

#[test]
fn an_edge_from_another_thread_wakes_a_parked_reactor() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    for watched in [true, false] {
        let done = Arc::new(AtomicBool::new(false));
        let (edges, told) = channel();
        let (looked, looks) = channel();
        let mut group = Group::new();
        let shared = Arc::clone(&done);
        group.wrap_streams(move |stream, opened| {
            assert_eq!(opened, Opened::Connected);
            Box::new(Handshake {
                stream,
                done: Arc::clone(&shared),
                edges: edges.clone(),
            })
        });
        let idle = Idle::Park {
            after: Duration::ZERO,
        };
        let reactor = group.add_reactor(None, idle);
        let (_sender, receiver) = mailbox(1);
        group.add_service(reactor, receiver, move || Client {
            remote,
            watched,
            stream: None,
            looked,
        });
        let running = group.start().unwrap();
        let (_peer, _) = listener.accept().unwrap();
        // At the start, and when it is watched.
        let mut edges = told.recv_timeout(PATIENCE).unwrap();
        if watched {
            edges = told.recv_timeout(PATIENCE).unwrap();
        }
        assert!(!looks.recv_timeout(PATIENCE).unwrap());
        done.store(true, Ordering::Release);
        edges.raise();
        while !looks.recv_timeout(PATIENCE).unwrap() {}
        running.stop();
        running.join();
    }
}

/// Notes when it is dropped.
#[derive(Debug)]
struct Named {
    stream: Stream,
    name: &'static str,
    dropped: Sender<&'static str>,
}

impl StreamWrapper for Named {
    fn inner(&self) -> &Stream {
        &self.stream
    }

    fn inner_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.dropped.send(self.name);
    }
}

#[test]
fn the_second_wrapper_is_around_the_first() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap();
    let (dropped, drops) = channel();
    let (looked, looks) = channel();
    let mut group = Group::new();
    for name in ["inner", "outer"] {
        let dropped = dropped.clone();
        group.wrap_streams(move |stream, _| {
            let dropped = dropped.clone();
            Box::new(Named {
                stream,
                name,
                dropped,
            })
        });
    }
    drop(dropped);
    let reactor = group.add_reactor(None, Idle::Yield);
    let (_sender, receiver) = mailbox(1);
    group.add_service(reactor, receiver, move || Client {
        remote,
        watched: true,
        stream: None,
        looked,
    });
    let running = group.start().unwrap();
    while !looks.recv_timeout(PATIENCE).unwrap() {}
    running.stop();
    running.join();
    assert_eq!(drops.iter().collect::<Vec<_>>(), ["outer", "inner"]);
}
