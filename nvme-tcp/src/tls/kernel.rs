//! TLS by the kernel (kTLS): once the handshake is over, the kernel's module `tls` encrypts and decrypts records, and the
//! socket is read and written as if there were none.
//!
//! The traffic secrets of the handshake are what it takes, and they are kept for a KeyUpdate. Where the kernel cannot do it
//! nothing has happened, and the library goes on.
//!
//! The kernel counts no records. So those are counted here that it makes of what is sent, and before one key has encrypted as many
//! as AES-GCM allows, the keys of this direction are changed (KeyUpdate). A kernel before Linux 6.14 cannot: there the connection
//! ends, with close_notify and [`TlsError::KeyLimit`], and a host connects again as after any loss. What is received the peer has
//! to count.
#![expect(unsafe_code, reason = "options and control messages of sockets")]

use std::fmt;
use std::io::{self, ErrorKind};
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use super::TlsError;
use super::psk::{CipherSuite, expand_label};

/// Kinds of records (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Kinds of handshake messages that may come after the handshake (RFC 8446, 4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// The alert that says that its sender sends no more.
const CLOSE_NOTIFY: u8 = 0;
/// A record's plaintext at most.
const RECORD_MAX: usize = 16 * 1024;
/// Records that one key may encrypt: 2^24.5 of them as large as there are (RFC 8446, 5.5).
const RECORDS_MAX: u64 = 23_726_566;
/// Bytes of the initialization vector, of which the kernel calls the first four a salt.
const IV_LEN: usize = 12;
const SALT_LEN: usize = 4;

/// Whether it was told that there is none.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Why a connection is encrypted in user space although the kernel was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoKtls {
    #[error("the kernel has no module 'tls'")]
    NoModule,
    #[error("the connection is not a TCP socket")]
    NoSocket,
    #[error("the handshake has not told its traffic secrets")]
    NoSecrets,
    #[error("the peer has sent data before its handshake was over")]
    Data,
    #[error("the kernel does not do it on this socket ({0})")]
    Refused(ErrorKind),
    #[error("the kernel does not have the cipher suite {cipher} ({error})", cipher = .0.name(), error = .1)]
    NoCipher(CipherSuite, ErrorKind),
}

impl NoKtls {
    /// Says it, the first time.
    pub(super) fn tell(self) {
        if !TOLD.swap(true, Ordering::Relaxed) {
            log::warn!("kTLS: {self}: connections are encrypted in user space");
        }
    }
}

/// Whether the kernel has the module, which is loaded if it is there. May take as long as that: not for reactors.
pub(super) fn module() -> Result<(), NoKtls> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let look = || {
        // A socket that is not connected is refused as well, but not for that reason.
        std::net::TcpListener::bind(("127.0.0.1", 0)).is_ok_and(|socket| {
            let error = set_ulp(std::os::fd::AsFd::as_fd(&socket)).err();
            error.and_then(|error| error.raw_os_error()) != Some(libc::ENOENT)
        })
    };
    match FOUND.get_or_init(look) {
        true => Ok(()),
        false => Err(NoKtls::NoModule),
    }
}

/// The traffic secrets of both directions, and what they are for. Shows nothing of them; wiped when it is dropped.
pub(super) struct Secrets {
    pub(super) suite: CipherSuite,
    pub(super) sending: Zeroizing<Vec<u8>>,
    pub(super) receiving: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.suite).finish()
    }
}

/// A connection that the kernel encrypts and decrypts.
#[derive(Debug)]
pub(super) struct Kernel {
    secrets: Secrets,
    /// The peer wants that the keys of this direction are changed.
    owes_update: bool,
    /// Records that the present key has encrypted, at most, and how many it may.
    records: u64,
    records_max: u64,
}

/// What a record was that is not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Nothing that matters, or it has been dealt with.
    Done,
    /// The peer sends no more.
    End,
}

impl Kernel {
    /// Hands a connection to the kernel, on which both directions are at the front of the first record of these secrets.
    ///
    /// # Errors
    /// It cannot be done. With `Ok` inside, all is as it was before; otherwise the connection is lost.
    pub(super) fn install(
        socket: BorrowedFd<'_>,
        secrets: Secrets,
    ) -> Result<Result<Self, NoKtls>, TlsError> {
        if let Err(error) = set_ulp(socket) {
            return Ok(Err(match error.raw_os_error() {
                Some(libc::ENOENT) => NoKtls::NoModule,
                _ => NoKtls::Refused(error.kind()),
            }));
        }
        // Without keys the module passes everything on.
        if let Err(error) = set_keys(socket, libc::TLS_TX, secrets.suite, &secrets.sending) {
            return Ok(Err(NoKtls::NoCipher(secrets.suite, error.kind())));
        }
        set_keys(socket, libc::TLS_RX, secrets.suite, &secrets.receiving)
            .map_err(|_| TlsError::Failed("the kernel encrypts and does not decrypt"))?;
        Ok(Ok(Self::new(secrets)))
    }

    fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            owes_update: false,
            records: 0,
            records_max: RECORDS_MAX,
        }
    }

    /// Takes the record of which the kernel has said that it is not data.
    ///
    /// # Errors
    /// What it was ends the connection, or cannot be followed by this kernel; nothing is there.
    pub(super) fn receive_control(&mut self, socket: BorrowedFd<'_>) -> io::Result<Control> {
        let mut record = Zeroizing::new(vec![0; RECORD_MAX]);
        let (kind, len) = receive_record(socket, &mut record)?;
        let message = record.get(..len).unwrap_or_default();
        match (kind, message) {
            (ALERT, &[_, CLOSE_NOTIFY]) => Ok(Control::End),
            (ALERT, &[_, alert]) => Err(TlsError::Alert(alert).into()),
            (HANDSHAKE, messages) => self.handshake(socket, messages).map(|()| Control::Done),
            _ => Err(TlsError::Failed("a record of another kind after the handshake").into()),
        }
    }

    /// Takes handshake messages, which are whole, each with its kind and three bytes of length.
    fn handshake(&mut self, socket: BorrowedFd<'_>, mut messages: &[u8]) -> io::Result<()> {
        while !messages.is_empty() {
            let malformed = TlsError::Failed("a malformed handshake message after the handshake");
            let (&[kind, high, middle, low], rest) =
                messages.split_first_chunk().ok_or(malformed)?;
            let len = u32::from_be_bytes([0, high, middle, low]) as usize;
            let (body, rest) = rest.split_at_checked(len).ok_or(malformed)?;
            match (kind, body) {
                // Nobody here resumes a session.
                (NEW_SESSION_TICKET, _) => {}
                // What comes behind it is of the next keys.
                (KEY_UPDATE, &[request @ (0 | 1)]) if rest.is_empty() => {
                    self.update_receiving(socket)?;
                    self.owes_update |= request == 1;
                }
                _ => return Err(malformed.into()),
            }
            messages = rest;
        }
        Ok(())
    }

    fn update_receiving(&mut self, socket: BorrowedFd<'_>) -> Result<(), TlsError> {
        self.secrets.receiving = next(self.secrets.suite, &self.secrets.receiving);
        set_keys(
            socket,
            libc::TLS_RX,
            self.secrets.suite,
            &self.secrets.receiving,
        )
        .map_err(|_| TlsError::KeyUpdate)
    }

    /// Counts the records that `len` bytes are sent in, which the kernel has taken in one call.
    #[inline]
    pub(super) fn count(&mut self, len: usize) {
        self.records += 1 + (len / RECORD_MAX) as u64;
    }

    /// Before data is sent: changes the keys of this direction if the peer has asked for that, or the present one has encrypted
    /// what it may.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`]: there is no room to tell the peer. Otherwise the connection is broken.
    #[inline]
    pub(super) fn before_data(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        match self.owes_update || self.records >= self.records_max {
            false => Ok(()),
            true => self.update_sending(socket),
        }
    }

    #[cold]
    fn update_sending(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        // Once the peer is told there is no way back.
        if !changes_keys(socket) {
            self.close(socket);
            return Err(match self.owes_update {
                true => TlsError::KeyUpdate.into(),
                false => TlsError::KeyLimit.into(),
            });
        }
        // The peer need not do the same.
        send_record(socket, HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0])?;
        self.owes_update = false;
        self.records = 0;
        self.secrets.sending = next(self.secrets.suite, &self.secrets.sending);
        set_keys(
            socket,
            libc::TLS_TX,
            self.secrets.suite,
            &self.secrets.sending,
        )
        .map_err(|_| TlsError::KeyUpdate.into())
    }

    /// Says that no more will be sent, if there is room for it.
    pub(super) fn close(&self, socket: BorrowedFd<'_>) {
        const WARNING: u8 = 1;
        let _ = send_record(socket, ALERT, &[WARNING, CLOSE_NOTIFY]);
    }
}

/// The traffic secret after this one (RFC 8446, 7.2).
fn next(suite: CipherSuite, secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let hash = suite.hash();
    expand_label(hash, secret, "traffic upd", "", hash.size())
}

/// Key and initialization vector of a traffic secret (RFC 8446, 7.3).
fn keys(suite: CipherSuite, secret: &[u8]) -> [Zeroizing<Vec<u8>>; 2] {
    let key_len = match suite {
        CipherSuite::Aes128GcmSha256 => libc::TLS_CIPHER_AES_GCM_128_KEY_SIZE,
        CipherSuite::Aes256GcmSha384 => libc::TLS_CIPHER_AES_GCM_256_KEY_SIZE,
    };
    [("key", key_len), ("iv", IV_LEN)]
        .map(|(label, len)| expand_label(suite.hash(), secret, label, "", len))
}

fn set_ulp(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

/// Whether the kernel takes other keys for sending in place of those that it has. It is offered some for no cipher: before it
/// looks at them, one that takes none is busy.
fn changes_keys(socket: BorrowedFd<'_>) -> bool {
    const NO_CIPHER: u16 = 0;
    let [version, cipher] = [libc::TLS_1_3_VERSION, NO_CIPHER].map(u16::to_ne_bytes);
    let refused = set_option(
        socket,
        libc::SOL_TLS,
        libc::TLS_TX,
        &[version, cipher].concat(),
    );
    refused.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// Gives a direction of a connection the keys of a traffic secret; the next record is the first of them.
fn set_keys(
    socket: BorrowedFd<'_>,
    direction: libc::c_int,
    suite: CipherSuite,
    secret: &[u8],
) -> io::Result<()> {
    let [key, iv] = keys(suite, secret);
    let cipher = match suite {
        CipherSuite::Aes128GcmSha256 => libc::TLS_CIPHER_AES_GCM_128,
        CipherSuite::Aes256GcmSha384 => libc::TLS_CIPHER_AES_GCM_256,
    };
    let (salt, iv) = iv.split_at(SALT_LEN);
    // `struct tls12_crypto_info_aes_gcm_*`: version and cipher, the initialization vector's end, the key, its front, and the
    // number of the next record.
    let mut info = Zeroizing::new(Vec::with_capacity(64));
    info.extend_from_slice(&libc::TLS_1_3_VERSION.to_ne_bytes());
    info.extend_from_slice(&cipher.to_ne_bytes());
    for part in [iv, &key, salt, &[0; 8]] {
        info.extend_from_slice(part);
    }
    set_option(socket, libc::SOL_TLS, direction, &info)
}

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "tens of bytes")]
    let len = value.len() as libc::socklen_t;
    // SAFETY: the value is as long as is said, and the descriptor is open for as long as it is borrowed
    // (`without_the_module_nothing_happens`).
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Room for one control message with one byte, aligned as its header is.
#[repr(C)]
union ControlRoom {
    header: libc::cmsghdr,
    bytes: [u8; 32],
}

/// What `recvmsg` and `sendmsg` take: one buffer, and room for one control message. It points to both.
fn message(part: &mut libc::iovec, room: &mut ControlRoom) -> libc::msghdr {
    // SAFETY: all fields are numbers and pointers, for which zeroes are good
    // (`a_record_has_a_kind_only_if_the_kernel_tells`).
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_controllen = size_of_val(room);
    message.msg_control = std::ptr::from_mut(room).cast();
    message
}

/// Takes one record, whatever its kind; its kind and its length.
fn receive_record(socket: BorrowedFd<'_>, record: &mut [u8]) -> io::Result<(u8, usize)> {
    let mut room = ControlRoom { bytes: [0; 32] };
    let mut part = libc::iovec {
        iov_base: record.as_mut_ptr().cast(),
        iov_len: record.len(),
    };
    let mut message = message(&mut part, &mut room);
    // SAFETY: the buffers are there for as long as the call takes, and are as long as is said; the kernel's answer is read
    // only where the header says that it is there (`a_record_has_a_kind_only_if_the_kernel_tells`).
    unsafe {
        let len = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        let kind = first.as_ref().filter(|header| {
            header.cmsg_level == libc::SOL_TLS && header.cmsg_type == libc::TLS_GET_RECORD_TYPE
        });
        match kind {
            Some(header) => Ok((*libc::CMSG_DATA(header), len)),
            None => Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// Sends one record of a kind that is not data.
fn send_record(socket: BorrowedFd<'_>, kind: u8, content: &[u8]) -> io::Result<()> {
    let mut room = ControlRoom { bytes: [0; 32] };
    let mut part = libc::iovec {
        // It is only read.
        iov_base: content.as_ptr().cast_mut().cast(),
        iov_len: content.len(),
    };
    let mut message = message(&mut part, &mut room);
    // SAFETY: a constant that is computed; the room has 32 bytes, and a header with one byte takes 24.
    let (space, len) = unsafe { (libc::CMSG_SPACE(1), libc::CMSG_LEN(1)) };
    message.msg_controllen = space as usize;
    assert!(
        message.msg_controllen <= size_of::<ControlRoom>(),
        "room for a control message"
    );
    // SAFETY: there is room for the one header and its byte, and the buffers are there for as long as the call takes.
    let sent = unsafe {
        if let Some(header) = libc::CMSG_FIRSTHDR(&raw const message).as_mut() {
            header.cmsg_level = libc::SOL_TLS;
            header.cmsg_type = libc::TLS_SET_RECORD_TYPE;
            header.cmsg_len = len as usize;
            *libc::CMSG_DATA(header) = kind;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::sendmsg(socket.as_raw_fd(), &raw const message, flags)
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == content.len() => Ok(()),
        Ok(_) => Err(ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn bytes(hex: &str) -> Zeroizing<Vec<u8>> {
        let pairs = (0..hex.len()).step_by(2);
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Zeroizing::new(pairs.map(byte).collect())
    }

    /// The traffic secrets of RFC 8448, section 3, with the keys that are written there.
    #[test]
    fn keys_are_those_of_the_rfc() {
        for (secret, key, iv) in [
            (
                "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
                "9f02283b6c9c07efc26bb9f2ac92e356",
                "cf782b88dd83549aadf1e984",
            ),
            (
                "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
                "17422dda596ed5d9acd890e3c63f5051",
                "5b78923dee08579033e523d9",
            ),
        ] {
            let found = keys(CipherSuite::Aes128GcmSha256, &bytes(secret));
            assert_eq!(found, [bytes(key), bytes(iv)]);
        }
        let secret = vec![7; 48];
        let [key, iv] = keys(CipherSuite::Aes256GcmSha384, &secret);
        assert_eq!((key.len(), iv.len()), (32, 12));
        let update = next(CipherSuite::Aes256GcmSha384, &secret);
        assert!(update.len() == 48 && *update != secret);
    }

    fn pair() -> [TcpStream; 2] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        [client, listener.accept().unwrap().0]
    }

    fn secrets(suite: CipherSuite, sending: u8) -> Secrets {
        let of = |byte| Zeroizing::new(vec![byte; suite.hash().size()]);
        Secrets {
            suite,
            sending: of(sending),
            receiving: of(sending ^ 3),
        }
    }

    fn exchange(from: &mut TcpStream, to: &mut TcpStream) {
        let data: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| from.write_all(&data).unwrap());
            let mut read = vec![0; data.len()];
            to.read_exact(&mut read).unwrap();
            assert_eq!(read, data);
        });
    }

    /// Where there is no module the connection is as it was; where there is one, both ends of it understand each other,
    /// the end of the stream and a change of keys included.
    #[test]
    fn without_the_module_nothing_happens() {
        for suite in CipherSuite::ALL {
            let [mut host, mut target] = pair();
            let at_host = Kernel::install(host.as_fd(), secrets(suite, 1)).unwrap();
            if module().is_err() {
                assert_eq!(at_host.unwrap_err(), NoKtls::NoModule);
                exchange(&mut host, &mut target);
                exchange(&mut target, &mut host);
                continue;
            }
            let at_target = Kernel::install(target.as_fd(), secrets(suite, 2)).unwrap();
            let (at_host, mut at_target) = (at_host.unwrap(), at_target.unwrap());
            exchange(&mut host, &mut target);
            exchange(&mut target, &mut host);
            at_host.close(host.as_fd());
            let error = target.read(&mut [0; 16]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            let end = at_target.receive_control(target.as_fd()).unwrap();
            assert_eq!(end, Control::End);
        }
    }

    /// A key encrypts as many records as it may, and none more: then it is changed, or the connection ends where the kernel does
    /// not do that, and the peer sees the end of what is sent. Both ends of it where there is the module; without it there is no
    /// other key either, and what would be a record is data.
    #[test]
    fn a_key_has_a_limit() {
        for suite in CipherSuite::ALL {
            let [mut host, mut target] = pair();
            let ends = match module() {
                Ok(()) => [(&host, 1), (&target, 2)].map(|(end, sending)| {
                    let secrets = secrets(suite, sending);
                    Kernel::install(end.as_fd(), secrets).unwrap().unwrap()
                }),
                Err(_) => [1, 2].map(|sending| Kernel::new(secrets(suite, sending))),
            };
            let [mut at_host, mut at_target] = ends;
            // 2^24.5, rounded down.
            assert_eq!(at_host.records_max, (1u64 << 49).isqrt());
            at_host.records_max = 3;
            let mut data = [0; 100];
            // A record and a half, which are two, and then one.
            for len in [RECORD_MAX + RECORD_MAX / 2, 100] {
                at_host.before_data(host.as_fd()).unwrap();
                host.write_all(&vec![7; len]).unwrap();
                at_host.count(len);
                target.read_exact(&mut vec![0; len]).unwrap();
            }
            let Err(error) = at_host.before_data(host.as_fd()) else {
                println!("the kernel changes keys");
                host.write_all(&[9; 100]).unwrap();
                at_host.count(100);
                assert_eq!(at_host.records, 1);
                let error = target.read(&mut data).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EIO));
                let control = at_target.receive_control(target.as_fd()).unwrap();
                assert_eq!(control, Control::Done);
                target.read_exact(&mut data).unwrap();
                assert_eq!(data, [9; 100]);
                continue;
            };
            assert_eq!(TlsError::of(&error), Some(TlsError::KeyLimit));
            match module() {
                Ok(()) => {
                    println!("the kernel keeps its keys");
                    let error = target.read(&mut data).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EIO));
                    let control = at_target.receive_control(target.as_fd()).unwrap();
                    assert_eq!(control, Control::End);
                }
                Err(_) => {
                    let len = target.read(&mut data).unwrap();
                    assert_eq!(data[..len], [1, CLOSE_NOTIFY]);
                }
            }
        }
    }

    /// What is sent is told as sent. Without TLS the socket takes the record for data, and leaves out its kind.
    #[test]
    fn a_record_that_was_sent_is_no_error() {
        let [host, mut target] = pair();
        send_record(host.as_fd(), HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0]).unwrap();
        let mut read = [0; 5];
        target.read_exact(&mut read).unwrap();
        assert_eq!(read, [KEY_UPDATE, 0, 0, 1, 0]);
    }

    /// Of a socket without TLS no record comes, and what is left of a handshake is followed or refused.
    #[test]
    fn a_record_has_a_kind_only_if_the_kernel_tells() {
        let [mut host, target] = pair();
        host.write_all(b"data").unwrap();
        target.peek(&mut [0; 4]).unwrap();
        let error = receive_record(target.as_fd(), &mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);

        let mut kernel = Kernel::new(secrets(CipherSuite::Aes128GcmSha256, 1));
        let ticket = [NEW_SESSION_TICKET, 0, 0, 2, 1, 2];
        let tickets = [ticket, ticket].concat();
        assert!(kernel.handshake(target.as_fd(), &tickets).is_ok());
        let before = kernel.secrets.receiving.clone();
        for malformed in [
            &ticket[..5],
            &ticket[..3],
            &[KEY_UPDATE, 0, 0, 1, 2],
            &[KEY_UPDATE, 0, 0, 0],
            &[KEY_UPDATE, 0, 0, 1, 0, KEY_UPDATE, 0, 0, 1, 0],
            &[1, 0, 0, 0],
        ] {
            let error = kernel.handshake(target.as_fd(), malformed).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("malformed"), "{malformed:?}: {text}");
        }
        assert_eq!(kernel.secrets.receiving, before);
        // A kernel that does not change keys says so.
        let update = [KEY_UPDATE, 0, 0, 1, 1];
        let error = kernel.handshake(target.as_fd(), &update).unwrap_err();
        assert_eq!(TlsError::of(&error), Some(TlsError::KeyUpdate));
        assert!(!format!("{kernel:?}").contains(", 1"), "{kernel:?}");
    }
}
