//! The host under test, next to a connection that is in order.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use pollux_nvme_tcp::host::{
    Completed, ConnectOptions, Controller, ControllerError, ControllerEvent, ControllerOptions,
    HostIdentity, QueueError, QueuePair, Request,
};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::target::{self, Backend};
use pollux_nvme_tcp::testing::peer::Peer;
use pollux_nvme_tcp::testing::wire::{Checked, PATIENCE};
use pollux_nvme_tcp::testing::{TestTarget, nqn, pattern};
use pollux_reactor::{Context, Group, Idle, Progress, Sender, Service, mailbox};

/// What the host under test is asked to do.
pub enum Order {
    /// Bring up the controller whose connections stay in order.
    Healthy(Box<ControllerOptions>),
    /// Connect a queue pair, and tell what becomes of it.
    Queue(Box<ConnectOptions>, mpsc::Sender<Event>),
    /// Send a request on it.
    Request(Request),
    /// Bring a controller up, and tell what becomes of it.
    Controller(Box<ControllerOptions>, mpsc::Sender<Event>),
    /// Ask the controller something.
    Admin(Request),
    /// Close both.
    Close,
    /// Let go of the connections that are in order, too.
    Quit(mpsc::Sender<Event>),
    /// Write and read over the connection that is in order.
    Check(u64, mpsc::Sender<Event>),
}

/// What has become of it.
#[derive(Debug)]
pub enum Event {
    /// The queue pair is connected.
    Ready,
    /// A request has ended.
    Ended(Completed),
    /// The queue pair has ended.
    Error(QueueError),
    /// The controller is usable: namespaces, namespaces that were left out, I/O queues.
    Controller(usize, usize, u16),
    /// The controller has ended.
    ControllerError(ControllerError),
    /// An order was carried out.
    Done,
}

/// The one service of the reactor under test: a queue pair and a controller that are connected to broken
/// peers, next to a controller and a queue pair of a peer that is in order.
#[derive(Default)]
struct Host {
    admin: Option<Controller>,
    io: Option<QueuePair>,
    check: Option<(u64, mpsc::Sender<Event>)>,
    queue: Option<(QueuePair, mpsc::Sender<Event>)>,
    announced: bool,
    controller: Option<(Controller, mpsc::Sender<Event>)>,
}

/// Where the healthy I/O goes, and how much of it there is.
const CHECK_LBA: u64 = 64;
const CHECK_LEN: usize = 16 * 1024;

fn blocks(opcode: u8, lba: u64, buffer: Vec<u8>) -> Request {
    let count = u32::try_from(buffer.len() / 512).unwrap_or(1);
    Request::block(opcode, 1, lba, count, 9, buffer)
}

/// Sends an event; the test may have given up on the row.
fn tell(to: &mpsc::Sender<Event>, event: Event) {
    let _ = to.send(event);
}

impl Host {
    fn poll_healthy(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        if let Some(admin) = &mut self.admin {
            let _ = admin.poll(now);
            while let Some(event) = admin.next_event() {
                match event {
                    ControllerEvent::Ready => {
                        let options = admin.io_options(1);
                        self.io = Some(QueuePair::connect(cx.net(), now, options).unwrap());
                    }
                    ControllerEvent::Ended(error) => panic!("the healthy controller: {error}"),
                    _ => {}
                }
            }
        }
        let Some(io) = &mut self.io else {
            return;
        };
        let mut ended = Vec::new();
        let received = io.receive(now, false, &mut |c| ended.push(c));
        let _ = received.unwrap_or_else(|error| panic!("the healthy queue pair: {error}"));
        for completed in ended {
            let written = completed.request.command.opcode == nvm::WRITE;
            if written && completed.outcome.is_success() {
                io.submit(blocks(nvm::READ, CHECK_LBA, vec![0; CHECK_LEN]))
                    .unwrap();
            } else if let Some((_, reply)) = self.check.take() {
                tell(&reply, Event::Ended(completed));
            }
        }
        // The check waits until the queue pair is connected.
        if let Some((seed, _)) = &self.check
            && io.is_ready()
            && io.outstanding() == 0
        {
            io.submit(blocks(nvm::WRITE, CHECK_LBA, pattern(CHECK_LEN, *seed)))
                .unwrap();
        }
        let sent = io.transmit(&mut |_| ());
        sent.unwrap_or_else(|error| panic!("the healthy queue pair: {error}"));
    }

    fn poll_queue(&mut self, cx: &Context<'_>) {
        let Some((queue, reply)) = &mut self.queue else {
            return;
        };
        let mut sink = |completed| tell(reply, Event::Ended(completed));
        let result = queue
            .receive(cx.now(), false, &mut sink)
            .and_then(|_| queue.transmit(&mut sink));
        if !self.announced && queue.is_ready() {
            self.announced = true;
            tell(reply, Event::Ready);
        }
        if let Err(error) = result {
            tell(reply, Event::Error(error));
            self.queue = None;
        }
    }

    fn poll_controller(&mut self, cx: &mut Context<'_>) {
        let Some((controller, reply)) = &mut self.controller else {
            return;
        };
        let now = cx.now();
        let _ = controller.poll(now);
        if controller.is_to_connect_again() {
            controller.connect_again(cx.net(), now);
        }
        let mut over = false;
        while let Some(event) = controller.next_event() {
            match event {
                ControllerEvent::Ready => {
                    // What an I/O queue pair would be made of must be sound whatever was reported.
                    let options = controller.io_options(1);
                    assert!(options.queue_size >= 2 && options.transfer_max >= 512);
                    let (found, left) = (controller.namespaces(), controller.left_out());
                    let queues = controller.io_queues();
                    tell(
                        reply,
                        Event::Controller(found.count(), left.count(), queues),
                    );
                }
                ControllerEvent::Admin(completed) => tell(reply, Event::Ended(completed)),
                ControllerEvent::Ended(error) => {
                    tell(reply, Event::ControllerError(error));
                    over = true;
                }
                _ => {}
            }
        }
        if over {
            self.controller = None;
        }
    }
}

impl Service for Host {
    type Message = Order;

    fn on_message(&mut self, order: Order, cx: &mut Context<'_>) {
        let now = cx.now();
        match order {
            Order::Healthy(options) => {
                self.admin = Some(Controller::connect(cx.net(), now, *options).unwrap());
            }
            Order::Queue(options, reply) => {
                let queue = QueuePair::connect(cx.net(), now, *options).unwrap();
                self.announced = false;
                self.queue = Some((queue, reply));
            }
            Order::Request(request) => {
                if let Some((queue, _)) = &mut self.queue {
                    queue.submit(request).unwrap();
                }
            }
            Order::Controller(options, reply) => {
                let controller = Controller::connect(cx.net(), now, *options).unwrap();
                self.controller = Some((controller, reply));
            }
            Order::Admin(request) => {
                if let Some((controller, _)) = &mut self.controller {
                    controller.submit(request).unwrap();
                }
            }
            Order::Close => {
                self.queue = None;
                self.controller = None;
            }
            Order::Quit(reply) => {
                self.io = None;
                self.admin = None;
                tell(&reply, Event::Done);
            }
            Order::Check(seed, reply) => self.check = Some((seed, reply)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        self.poll_healthy(cx);
        self.poll_queue(cx);
        self.poll_controller(cx);
        // There are deadlines to watch.
        Progress::Busy
    }
}

/// Two reactors: one with the host under test, one with a target for its healthy connection.
pub struct TestHost {
    target: TestTarget,
    orders: Sender<Order>,
    listener: TcpListener,
    rounds: u64,
}

impl TestHost {
    pub fn start() -> Self {
        let (orders, receiver) = mailbox(16);
        let mut group = Group::new();
        let after = Duration::from_micros(50);
        let reactor = group.add_reactor(None, Idle::Park { after });
        let handle = target::install(&mut group, &[reactor]);
        let reactor = group.add_reactor(None, Idle::Yield);
        group.add_service(reactor, receiver, Host::default);
        let memory = Backend::Memory { bytes: 1 << 20 };
        let target = TestTarget::serve(handle, group.start().unwrap(), &[memory]);
        let connect = ConnectOptions::admin(target.addr, nqn(), HostIdentity::random());
        let mut healthy = ControllerOptions::new(connect);
        healthy.io_queues = 1;
        healthy.io_queue_size = 32;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let this = Self {
            target,
            orders,
            listener,
            rounds: 0,
        };
        this.order(Order::Healthy(Box::new(healthy)));
        this
    }

    /// Options for I/O queue 1 of the scripted controller.
    pub fn options(&self) -> ConnectOptions {
        let addr = self.listener.local_addr().unwrap();
        let mut options = ConnectOptions::admin(addr, nqn(), HostIdentity::random());
        options.queue_id = 1;
        options.controller_id = 1;
        options.transfer_max = 1 << 20;
        options.timeout = PATIENCE;
        options
    }

    pub fn order(&self, order: Order) {
        let taken = self.orders.send(order).is_ok();
        assert!(taken, "the host has stopped, or does not take its orders");
    }

    /// Makes the host connect a queue pair, and takes the connection.
    pub fn queue(&self, options: ConnectOptions) -> Checked<(Peer, Events)> {
        let events = self.connect(options);
        Ok((Peer::accept(&self.listener)?, events))
    }

    /// Makes the host connect a queue pair.
    pub fn connect(&self, options: ConnectOptions) -> Events {
        let (sender, events) = mpsc::channel();
        self.order(Order::Queue(Box::new(options), sender));
        Events(events)
    }

    /// Makes the host connect to a controller, and takes the connection.
    pub fn controller(&self, options: ControllerOptions) -> Checked<(Peer, Events)> {
        let events = self.connect_controller(options);
        Ok((Peer::accept(&self.listener)?, events))
    }

    /// Makes the host connect to a controller.
    pub fn connect_controller(&self, options: ControllerOptions) -> Events {
        let (sender, events) = mpsc::channel();
        self.order(Order::Controller(Box::new(options), sender));
        Events(events)
    }

    /// Writes and reads over the connection that is in order.
    pub fn check(&mut self) -> Checked<()> {
        self.rounds += 1;
        let (sender, events) = mpsc::channel();
        self.order(Order::Check(self.rounds, sender));
        let completed = Events(events).ended()?;
        if !completed.outcome.is_success() {
            return Err(format!("{:?}", completed.outcome));
        }
        if completed.request.buffer != pattern(CHECK_LEN, self.rounds) {
            return Err("what is read is not what was written".into());
        }
        Ok(())
    }

    /// Stops the reactors; a panic on one of them goes on here.
    pub fn stop(mut self) {
        // The target may stop first, and its end is not to be taken for a fault.
        let (sender, events) = mpsc::channel();
        self.order(Order::Quit(sender));
        let _ = Events(events).next();
        self.target.stop();
    }
}

/// What the host tells about a connection.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    pub fn next(&self) -> Checked<Event> {
        let event = self.0.recv_timeout(PATIENCE);
        event.map_err(|_| "nothing heard from the host".into())
    }

    /// The next event, if there is one.
    pub fn poll(&self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// The next event, which must be the end of a request.
    pub fn ended(&self) -> Checked<Completed> {
        match self.next()? {
            Event::Ended(completed) => Ok(completed),
            other => Err(format!("{other:?} instead of the end of a request")),
        }
    }
}
