//! The TLS library (s2n-tls), which reads and writes memory here: whoever calls brings what has arrived, and takes what is to be
//! sent. So it never waits, and runs on any thread.
#![expect(unsafe_code, reason = "the library calls back with pointers")]

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::mem::take;
use std::sync::OnceLock;
use std::task::Poll;

use s2n_tls::config::Config;
use s2n_tls::connection::Connection;
use s2n_tls::enums::{Blinding, Mode, PskHmac, Version};
use s2n_tls::psk::Psk;
use s2n_tls::security::Policy;
use zeroize::Zeroizing;

use super::TlsError;
use super::kernel::Secrets;
use super::psk::{CipherSuite, TlsPsk};

/// TLS 1.3 with the two cipher suites of NVMe/TCP before another one, which [`Engine::identity`] does not take, and X25519
/// before the curves of NIST: the library's answer to a client that guesses another group (HelloRetryRequest) does not go
/// together with pre-shared keys, and X25519 is what OpenSSL guesses.
const POLICY: &str = "CloudFront-TLS-1-3-2025-no-pq";

/// What the library calls the first traffic secrets of both sides, in the format of key logs.
const TRAFFIC_SECRETS: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

thread_local! {
    /// The traffic secrets that the library has told during the call that this thread makes.
    static TOLD: RefCell<TrafficSecrets> = RefCell::default();
}

/// The traffic secrets of client and server.
type TrafficSecrets = [Option<Zeroizing<Vec<u8>>>; 2];

/// Which side of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Host,
    Target,
}

/// One end of a TLS connection, without a stream.
#[derive(Debug)]
pub(super) struct Engine {
    connection: Connection,
    side: Side,
    /// The traffic secrets, if somebody wants them.
    secrets: Option<Told>,
}

/// Traffic secrets, as far as they were told. Shows nothing of them.
#[derive(Default)]
struct Told(TrafficSecrets);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

/// What one call reads from and writes to.
#[derive(Debug)]
pub(super) struct Wire<'a> {
    /// What has arrived and is not read yet.
    pub(super) incoming: &'a [u8],
    /// What is to be sent, in records.
    pub(super) outgoing: &'a mut Vec<u8>,
}

impl Engine {
    /// An end that has done nothing yet. With `secrets` it can be asked for those of its connection.
    pub(super) fn new(side: Side, secrets: bool) -> Result<Self, TlsError> {
        let mut connection = Connection::new(match side {
            Side::Host => Mode::Client,
            Side::Target => Mode::Server,
        });
        connection.set_config(config(secrets)?).map_err(failed)?;
        // Otherwise it would sleep after an error, and its reactor with it.
        connection
            .set_blinding(Blinding::SelfService)
            .map_err(failed)?;
        connection.prefer_throughput().map_err(failed)?;
        connection
            .set_receive_callback(Some(receive))
            .map_err(failed)?;
        connection.set_send_callback(Some(send)).map_err(failed)?;
        Ok(Self {
            connection,
            side,
            secrets: secrets.then(Told::default),
        })
    }

    /// One more key that may be used.
    pub(super) fn add(&mut self, psk: &TlsPsk) -> Result<(), TlsError> {
        let mut builder = Psk::builder().map_err(failed)?;
        builder
            .set_identity(psk.identity.as_bytes())
            .and_then(|builder| builder.set_secret(psk.key()))
            .and_then(|builder| {
                builder.set_hmac(match psk.suite {
                    CipherSuite::Aes128GcmSha256 => PskHmac::SHA256,
                    CipherSuite::Aes256GcmSha384 => PskHmac::SHA384,
                })
            })
            .map_err(failed)?;
        let psk = builder.build().map_err(failed)?;
        self.connection.append_psk(&psk).map_err(failed)
    }

    /// Goes on with the handshake as far as that which has arrived lets it. Whether it is over.
    pub(super) fn negotiate(&mut self, wire: &mut Wire<'_>) -> Result<bool, TlsError> {
        let result = self.call(wire, |connection| {
            connection.poll_negotiate().map_ok(|_| ())
        });
        match result {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(self.explain(&error)),
        }
    }

    /// The identity of the key that both sides have used.
    ///
    /// # Errors
    /// It is something else than a handshake with such a key.
    pub(super) fn identity(&self) -> Result<String, TlsError> {
        let len = self
            .connection
            .negotiated_psk_identity_length()
            .map_err(failed)?;
        let version = self.connection.actual_protocol_version().map_err(failed)?;
        let suite = self.connection.cipher_suite().map_err(failed)?;
        let known = CipherSuite::ALL.iter().any(|known| known.name() == suite);
        if len == 0 || version != Version::TLS13 || !known {
            return Err(TlsError::NoKey);
        }
        let mut identity = vec![0; len];
        self.connection
            .negotiated_psk_identity(&mut identity)
            .map_err(failed)?;
        String::from_utf8(identity).map_err(|_| TlsError::NoKey)
    }

    /// Takes the secrets of the connection, once its handshake is over; only before the first record of data either way.
    pub(super) fn take_secrets(&mut self) -> Option<Secrets> {
        let [client, server] = take(&mut self.secrets.as_mut()?.0);
        let suite = self.connection.cipher_suite().ok()?;
        let suite = CipherSuite::ALL.into_iter().find(|s| s.name() == suite)?;
        let (sending, receiving) = match self.side {
            Side::Host => (client?, server?),
            Side::Target => (server?, client?),
        };
        Some(Secrets {
            suite,
            sending,
            receiving,
        })
    }

    /// Encrypts `data` into records; all of it.
    pub(super) fn encrypt(&mut self, data: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut left = data;
        while !left.is_empty() {
            let incoming = &[];
            let mut wire = Wire { incoming, outgoing };
            match self.call(&mut wire, |connection| connection.poll_send(left)) {
                Poll::Ready(Ok(len)) => left = left.get(len..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(self.explain(&error)),
                // Memory takes all that is sent to it.
                Poll::Pending => return Err(TlsError::Failed("S2N_IO_BLOCKED")),
            }
        }
        Ok(())
    }

    /// Decrypts into `buf`: the bytes that were put there, zero once the peer has said that it sends no more; `None` when more
    /// has to arrive first.
    pub(super) fn decrypt(
        &mut self,
        buf: &mut [u8],
        wire: &mut Wire<'_>,
    ) -> Result<Option<usize>, TlsError> {
        match self.call(wire, |connection| connection.poll_recv(buf)) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(len)) => Ok(Some(len)),
            Poll::Ready(Err(error)) => Err(self.explain(&error)),
        }
    }

    /// Whether something was decrypted that nobody has taken yet.
    pub(super) fn has_decrypted(&self) -> bool {
        self.connection.peek_len() > 0
    }

    /// Says that no more will be sent.
    pub(super) fn close(&mut self, outgoing: &mut Vec<u8>) {
        let incoming = &[];
        let mut wire = Wire { incoming, outgoing };
        // Whoever closes wants no answer, and a peer that does not learn of it will see the end of the stream.
        let _ = self.call(&mut wire, |connection| {
            connection.poll_shutdown_send().map_ok(|_| ())
        });
    }

    fn call<R>(&mut self, wire: &mut Wire<'_>, f: impl FnOnce(&mut Connection) -> R) -> R {
        let context: *mut c_void = std::ptr::from_mut(wire).cast();
        // SAFETY: the callbacks run during `f` only, for as long as `wire` is borrowed, and nobody else uses it meanwhile; no
        // pointer to it is left behind (`a_handshake_in_memory`).
        let set = unsafe {
            self.connection.set_receive_context(context).is_ok()
                && self.connection.set_send_context(context).is_ok()
        };
        assert!(set, "a connection takes a context");
        let result = f(&mut self.connection);
        if let Some(secrets) = &mut self.secrets {
            let told = TOLD.with_borrow_mut(take);
            for (secret, told) in secrets.0.iter_mut().zip(told) {
                *secret = secret.take().or(told);
            }
        }
        // SAFETY: the callbacks refuse to work with a null pointer.
        let unset = unsafe {
            let null = std::ptr::null_mut();
            self.connection.set_receive_context(null).is_ok()
                && self.connection.set_send_context(null).is_ok()
        };
        assert!(unset, "a connection gives a context up");
        result
    }

    fn explain(&self, error: &s2n_tls::error::Error) -> TlsError {
        match self.connection.alert() {
            Some(alert) => TlsError::Alert(alert),
            // Those of a target that would go on with a certificate, and has none.
            None if self.side == Side::Target
                && [
                    "S2N_ERR_NO_VALID_SIGNATURE_SCHEME",
                    "S2N_ERR_CIPHER_NOT_SUPPORTED",
                ]
                .contains(&error.name()) =>
            {
                TlsError::UnknownIdentity
            }
            None => failed(error),
        }
    }
}

fn failed(error: impl std::borrow::Borrow<s2n_tls::error::Error>) -> TlsError {
    match error.borrow().name() {
        "S2N_ERR_BAD_PSK_BINDER" => TlsError::WrongKey,
        name => TlsError::Failed(name),
    }
}

/// The same for all connections, and another one for those whose `secrets` are wanted. Nobody is trusted for a certificate.
fn config(secrets: bool) -> Result<Config, TlsError> {
    static CONFIGS: [OnceLock<Result<Config, TlsError>>; 2] = [OnceLock::new(), OnceLock::new()];
    let [plain, telling] = &CONFIGS;
    let make = || {
        let mut builder = Config::builder();
        let policy = Policy::from_version(POLICY).map_err(failed)?;
        builder.set_security_policy(&policy).map_err(failed)?;
        builder.with_system_certs(false).map_err(failed)?;
        if secrets {
            // SAFETY: it takes no context (`the_secrets_of_both_sides_are_the_same`).
            unsafe { builder.set_key_log_callback(Some(note_secret), std::ptr::null_mut()) }
                .map_err(failed)?;
        }
        builder.build().map_err(failed)
    };
    match secrets {
        false => plain,
        true => telling,
    }
    .get_or_init(make)
    .clone()
}

/// Takes a line of the key log: a name, the client's random bytes and the secret, in hexadecimal digits.
unsafe extern "C" fn note_secret<C>(_: *mut c_void, _: *mut C, line: *mut u8, len: usize) -> c_int {
    // SAFETY: the library has as many bytes there.
    let line = unsafe { std::slice::from_raw_parts(line, len) };
    let mut fields = line.split(|byte| *byte == b' ');
    let name = fields.next().unwrap_or_default();
    let secret = fields.nth(1).unwrap_or_default();
    if let Some(at) = TRAFFIC_SECRETS.iter().position(|n| n.as_bytes() == name) {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => 0,
        };
        let bytes = secret.chunks_exact(2).map(|pair| match *pair {
            [high, low] => digit(high) << 4 | digit(low),
            _ => 0,
        });
        let mut secret = Zeroizing::new(Vec::with_capacity(64));
        secret.extend(bytes.take(64));
        TOLD.with_borrow_mut(|told| {
            if let Some(place) = told.get_mut(at) {
                *place = Some(secret);
            }
        });
    }
    0
}

/// Gives the library what has arrived.
unsafe extern "C" fn receive(context: *mut c_void, buf: *mut u8, len: u32) -> c_int {
    // SAFETY: `call` has set it to a `Wire`, or to null.
    let Some(wire) = (unsafe { context.cast::<Wire<'_>>().as_mut() }) else {
        return -1;
    };
    let len = (len as usize).min(wire.incoming.len());
    if len == 0 {
        would_block();
        return -1;
    }
    let (now, later) = wire.incoming.split_at(len);
    // SAFETY: the library has room for what it asks for, and its memory is not ours.
    unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), buf, len) };
    wire.incoming = later;
    c_int::try_from(len).unwrap_or(-1)
}

/// Takes what the library sends.
unsafe extern "C" fn send(context: *mut c_void, buf: *const u8, len: u32) -> c_int {
    // SAFETY: `call` has set it to a `Wire`, or to null.
    let Some(wire) = (unsafe { context.cast::<Wire<'_>>().as_mut() }) else {
        return -1;
    };
    if len > 0 {
        // SAFETY: the library has as many bytes there.
        let bytes = unsafe { std::slice::from_raw_parts(buf, len as usize) };
        wire.outgoing.extend_from_slice(bytes);
    }
    c_int::try_from(len).unwrap_or(-1)
}

/// Tells the library that it has to come again.
fn would_block() {
    // SAFETY: the place of this thread's error number is always there.
    unsafe { *libc::__errno_location() = libc::EWOULDBLOCK };
}

#[cfg(test)]
mod tests {
    use s2n_tls::enums::PeerKeyUpdate;

    use super::super::psk::{ConfiguredPsk, IdentityVersion};
    use super::*;

    fn psk(byte: u8, len: usize, version: IdentityVersion) -> TlsPsk {
        let psk = ConfiguredPsk::new(&vec![byte; len], None).unwrap();
        psk.tls_psk(version, "host", "subsystem").unwrap()
    }

    /// What the sides make of it, and what has gone over the wire to the target and to the host.
    fn shake(host: &[TlsPsk], target: &[TlsPsk]) -> [Result<Engine, TlsError>; 2] {
        let with = |side, keys: &[TlsPsk]| {
            let mut engine = Engine::new(side, true).unwrap();
            for key in keys {
                engine.add(key).unwrap();
            }
            engine
        };
        let mut sides = [with(Side::Host, host), with(Side::Target, target)];
        let mut pipes = [Vec::new(), Vec::new()];
        let mut done = [false; 2];
        for turn in 0..20 {
            let at = turn % 2;
            let [to_host, to_target] = &mut pipes;
            let (from, to) = if at == 0 {
                (to_host, to_target)
            } else {
                (to_target, to_host)
            };
            let mut wire = Wire {
                incoming: from,
                outgoing: to,
            };
            match sides[at].negotiate(&mut wire) {
                Ok(over) => done[at] = over,
                Err(error) => {
                    let [host, target] = sides;
                    return match at {
                        0 => [Err(error), Ok(target)],
                        _ => [Ok(host), Err(error)],
                    };
                }
            }
            let left = wire.incoming.len();
            let read = from.len() - left;
            from.drain(..read);
        }
        assert_eq!(done, [true; 2], "both sides are done");
        sides.map(Ok)
    }

    #[test]
    fn a_handshake_in_memory() {
        for (len, suite) in [
            (32, "TLS_AES_128_GCM_SHA256"),
            (48, "TLS_AES_256_GCM_SHA384"),
        ] {
            for version in IdentityVersion::ALL {
                let key = psk(7, len, version);
                let others = [32, 48].map(|len| {
                    let psk = ConfiguredPsk::new(&vec![9; len], None).unwrap();
                    psk.tls_psk(version, "another host", "subsystem").unwrap()
                });
                let known = [&others[..], std::slice::from_ref(&key)].concat();
                let [host, target] = shake(std::slice::from_ref(&key), &known);
                let (mut host, mut target) = (host.unwrap(), target.unwrap());
                assert_eq!(host.identity().unwrap(), key.identity);
                assert_eq!(target.identity().unwrap(), key.identity);
                assert_eq!(target.connection.cipher_suite().unwrap(), suite);
                let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
                let mut records = Vec::new();
                host.encrypt(&data, &mut records).unwrap();
                // As large as records may be.
                assert!(records.len() < data.len() + 7 * 32, "{}", records.len());
                let mut read = vec![0; data.len()];
                let mut at = 0;
                let mut none = Vec::new();
                let mut wire = Wire {
                    incoming: &records,
                    outgoing: &mut none,
                };
                while let Some(len) = target.decrypt(&mut read[at..], &mut wire).unwrap() {
                    at += len;
                    if at == data.len() {
                        break;
                    }
                }
                assert!(read == data && !target.has_decrypted());
            }
        }
    }

    /// What has arrived, decrypted: `len` bytes.
    fn read(engine: &mut Engine, records: &[u8], len: usize, sent: &mut Vec<u8>) -> Vec<u8> {
        let mut data = vec![0; len];
        let mut at = 0;
        let mut wire = Wire {
            incoming: records,
            outgoing: sent,
        };
        while at < len {
            let read = engine.decrypt(&mut data[at..], &mut wire).unwrap();
            at += read.expect("all of it has arrived");
        }
        data
    }

    /// The library changes its sending keys by itself before a key has encrypted as many records as it may, 2^24.5 of them;
    /// here it does so earlier.
    #[test]
    fn keys_that_change_while_data_flows() {
        let key = psk(7, 48, IdentityVersion::V0);
        let [host, target] = shake(std::slice::from_ref(&key), std::slice::from_ref(&key));
        let (mut host, mut target) = (host.unwrap(), target.unwrap());
        let data: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
        for round in 0..3 {
            for side in [Side::Host, Side::Target] {
                let (from, to) = match side {
                    Side::Host => (&mut host, &mut target),
                    Side::Target => (&mut target, &mut host),
                };
                let (mut plain, mut changed) = (Vec::new(), Vec::new());
                from.encrypt(&data, &mut plain).unwrap();
                assert_eq!(read(to, &plain, data.len(), &mut Vec::new()), data);
                from.connection
                    .request_key_update(PeerKeyUpdate::KeyUpdateNotRequested)
                    .unwrap();
                from.encrypt(&data, &mut changed).unwrap();
                // One record more, which says so.
                assert!(changed.len() > plain.len(), "round {round}, {side:?}");
                let mut answer = Vec::new();
                assert_eq!(read(to, &changed, data.len(), &mut answer), data);
                assert!(answer.is_empty(), "nobody was asked to do the same");
            }
        }
        // With the keys of before it is noise.
        let mut records = Vec::new();
        host.connection
            .request_key_update(PeerKeyUpdate::KeyUpdateNotRequested)
            .unwrap();
        host.encrypt(&data[..100], &mut records).unwrap();
        let update = usize::from(u16::from_be_bytes([records[3], records[4]])) + 5;
        let mut wire = Wire {
            incoming: &records[update..],
            outgoing: &mut Vec::new(),
        };
        assert!(target.decrypt(&mut [0; 100], &mut wire).is_err());
    }

    #[test]
    fn the_secrets_of_both_sides_are_the_same() {
        for (len, size) in [(32, 32), (48, 48)] {
            let key = psk(7, len, IdentityVersion::V0);
            let shaken = || {
                let [host, target] = shake(std::slice::from_ref(&key), std::slice::from_ref(&key));
                [host, target].map(|engine| engine.unwrap().take_secrets().unwrap())
            };
            let [host, target] = shaken();
            assert_eq!(*host.sending, *target.receiving);
            assert_eq!(*host.receiving, *target.sending);
            assert_ne!(*host.sending, *host.receiving);
            assert_eq!((host.sending.len(), host.receiving.len()), (size, size));
            assert_eq!((host.suite, target.suite), (key.suite, key.suite));
            assert_ne!(*shaken()[0].sending, *host.sending, "of one connection");
            assert!(!format!("{host:?}").contains(", "), "{host:?}");
        }
        let key = psk(7, 32, IdentityVersion::V0);
        let mut engine = Engine::new(Side::Host, true).unwrap();
        engine.add(&key).unwrap();
        assert!(engine.take_secrets().is_none(), "before its handshake");
    }

    #[test]
    fn a_handshake_without_a_common_key() {
        let key = psk(7, 32, IdentityVersion::V0);
        let wrong = psk(8, 32, IdentityVersion::V0);
        let [_, target] = shake(std::slice::from_ref(&key), &[wrong]);
        assert_eq!(target.unwrap_err(), TlsError::WrongKey);
        let unknown = psk(7, 32, IdentityVersion::V1);
        let [_, target] = shake(std::slice::from_ref(&key), &[unknown]);
        assert_eq!(target.unwrap_err(), TlsError::UnknownIdentity);
        let [_, target] = shake(&[key], &[]);
        assert_eq!(target.unwrap_err(), TlsError::UnknownIdentity);
    }
}
