//! `pollux key`: keys for in-band authentication (DH-HMAC-CHAP) and for TLS, in files.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use pollux_nvme_tcp::auth::{Hash, KeyText, Secret};
use pollux_nvme_tcp::spec::{HostNqn, Nqn};
use pollux_nvme_tcp::tls::{ConfiguredPsk, IdentityVersion};
use serde_json::json;

use crate::UsageError;
use crate::probe::{Text, print};

const EXAMPLES: &str = "\
Examples:
  pollux key gen -o host.key                 a new key in a new file, mode 0600
  pollux key gen --hmac sha384 --length 48   transformed with its owner's NQN
  pollux key gen --tls -o tls.key            a key for TLS
  pollux key check host.key                  is it whole, and of which kind
  pollux key derive host.key --nqn NQN       as it is used by this owner, for
                                             peers that do not transform keys
  pollux key derive tls.key --nqn HOSTNQN    the retained PSK of this host
  pollux key derive tls.key --nqn HOSTNQN --subsystem SUBNQN --identity 0
                                             identity and TLS PSK of handshakes,
                                             for peers that do not derive them

A key is one line: DHHC-1:HH:BASE64:, as 'nvme gen-dhchap-key' makes them, or
NVMeTLSkey-1:HH:BASE64:, as 'nvme gen-tls-key' does. Its file must not be
accessible to group and others. Exit code: 0, 1 (no key, or a file cannot be
used), 2 (wrong usage).";

/// Make and check keys for in-band authentication (DH-HMAC-CHAP) and for TLS.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum KeyCommand {
    /// Make a new key.
    Gen(GenArgs),
    /// Say what kind of key a file holds, and nothing of the key.
    Check(CheckArgs),
    /// Print the key that another one becomes with the names of those who use it.
    Derive(DeriveArgs),
}

/// Arguments of `pollux key gen`.
#[derive(Debug, Args)]
pub struct GenArgs {
    /// Make a key for TLS.
    #[arg(long)]
    tls: bool,

    /// Hash function that transforms the key with its owner's NQN before each use [default: none; with --tls that of the
    /// length, sha256 or sha384].
    #[arg(long, value_enum)]
    hmac: Option<Hmac>,

    /// Length in bytes: 32, 48 or 64 (with --tls 32 or 48); by default that of the hash function.
    #[arg(long, value_name = "BYTES", value_parser = length)]
    length: Option<usize>,

    /// File to make, with mode 0600; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Arguments of `pollux key check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// File with the key; - is standard input.
    file: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `pollux key derive`.
#[derive(Debug, Args)]
pub struct DeriveArgs {
    /// File with the key; - is standard input.
    file: PathBuf,

    /// NQN of the host whose key it is, or of the subsystem for a controller's key.
    #[arg(long, value_name = "NQN")]
    nqn: String,

    /// Of a key for TLS: the subsystem; prints the PSK identity and the TLS PSK in hexadecimal digits.
    #[arg(long, value_name = "SUBNQN")]
    subsystem: Option<String>,

    /// Version of the PSK identity: 0, or 1 with a digest of the key.
    #[arg(long, value_name = "VERSION", value_parser = ["0", "1"], default_value = "0", requires = "subsystem")]
    identity: String,

    /// File to make, with mode 0600; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What a file holds.
enum Key {
    Dhchap(Secret),
    Tls(ConfiguredPsk),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Hmac {
    None,
    Sha256,
    Sha384,
    Sha512,
}

impl Hmac {
    fn hash(self) -> Option<Hash> {
        match self {
            Self::None => None,
            Self::Sha256 => Some(Hash::Sha256),
            Self::Sha384 => Some(Hash::Sha384),
            Self::Sha512 => Some(Hash::Sha512),
        }
    }
}

fn length(text: &str) -> Result<usize, String> {
    let length = text.parse().ok();
    length
        .filter(|length| Secret::LENGTHS.contains(length))
        .ok_or_else(|| "a key has 32, 48 or 64 bytes".into())
}

/// Makes, checks or transforms a key.
///
/// # Errors
/// A file cannot be read or written, or holds no key.
pub fn run(command: &KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Gen(args) => put(generate(args)?, args.output.as_ref()),
        KeyCommand::Check(args) => {
            let (text, document) = match read(&args.file)? {
                Key::Dhchap(secret) => (
                    format!(
                        "a DH-HMAC-CHAP key of {} bytes, {}",
                        secret.size(),
                        used(secret.transform(), "its owner")
                    ),
                    json!({
                        "type": "DHHC-1",
                        "bytes": secret.size(),
                        "transform": secret.transform().map(Hash::name),
                    }),
                ),
                Key::Tls(psk) => (
                    format!(
                        "a TLS key of {} bytes for {}, {}",
                        psk.size(),
                        psk.suite().name(),
                        used(psk.transform(), "its host")
                    ),
                    json!({
                        "type": "NVMeTLSkey-1",
                        "bytes": psk.size(),
                        "transform": psk.transform().map(Hash::name),
                        "cipher_suite": psk.suite().name(),
                    }),
                ),
            };
            let mut lines = Text::default();
            lines.line(&text);
            print(args.json, &document, &lines)
        }
        KeyCommand::Derive(args) => put(derive(args)?, args.output.as_ref()),
    }
}

fn used(transform: Option<Hash>, owner: &str) -> String {
    match transform {
        Some(hash) => format!("transformed by {} with the NQN of {owner}", hash.name()),
        None => "used as it is".into(),
    }
}

fn generate(args: &GenArgs) -> anyhow::Result<KeyText> {
    let hash = args.hmac.map(Hmac::hash);
    if !args.tls {
        let hash = hash.flatten();
        let length = args.length.unwrap_or(hash.map_or(32, Hash::size));
        let secret = Secret::generate(length, hash).context("no random bytes")?;
        return Ok(text(&secret.to_text()));
    }
    let hash = hash.unwrap_or(match args.length {
        Some(48) => Some(Hash::Sha384),
        _ => Some(Hash::Sha256),
    });
    let length = args.length.unwrap_or(hash.map_or(32, Hash::size));
    // What does not go together is the user's mistake, and not that of the system.
    ConfiguredPsk::new(&vec![0; length], hash).map_err(|error| UsageError(error.to_string()))?;
    let psk = ConfiguredPsk::generate(length, hash).context("no random bytes")?;
    Ok(text(&psk.to_text()))
}

fn derive(args: &DeriveArgs) -> anyhow::Result<KeyText> {
    HostNqn::new(&args.nqn).map_err(|error| UsageError(format!("--nqn: {error}")))?;
    let subsystem = args.subsystem.as_ref();
    if let Some(subsystem) = subsystem {
        Nqn::new(subsystem).map_err(|error| UsageError(format!("--subsystem: {error}")))?;
    }
    match (read(&args.file)?, subsystem) {
        (Key::Dhchap(secret), None) => {
            let secret = secret.transformed(&args.nqn).to_secret();
            Ok(text(&secret.to_text()))
        }
        (Key::Dhchap(_), Some(_)) => bail!(
            "{}: --subsystem is for keys for TLS, and this is one for DH-HMAC-CHAP",
            args.file.display()
        ),
        (Key::Tls(psk), None) => Ok(text(&psk.retained(&args.nqn).to_text())),
        (Key::Tls(psk), Some(subsystem)) => {
            let version = match args.identity.as_str() {
                "1" => IdentityVersion::V1,
                _ => IdentityVersion::V0,
            };
            let psk = psk.tls_psk(version, &args.nqn, subsystem)?;
            // Of its whole size from the start: a text that grows leaves copies behind.
            let size = psk.identity.len() + 1 + 2 * psk.key().len();
            let mut text = String::with_capacity(size);
            text.push_str(&psk.identity);
            text.push('\n');
            for byte in psk.key() {
                write!(text, "{byte:02x}")?;
            }
            Ok(KeyText::new(text))
        }
    }
}

fn text(key: &str) -> KeyText {
    KeyText::new(key.to_owned())
}

fn put(key: KeyText, file: Option<&PathBuf>) -> anyhow::Result<()> {
    match file {
        Some(file) => key
            .write_new(file)
            .with_context(|| file.display().to_string()),
        None => {
            println!("{}", key.as_str());
            Ok(())
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Key> {
    let (text, name) = if file.as_os_str() == "-" {
        let mut text = String::new();
        let input = std::io::stdin();
        let name = "standard input".to_string();
        input
            .take(1024)
            .read_to_string(&mut text)
            .context(name.clone())?;
        (KeyText::new(text), name)
    } else {
        let name = file.display().to_string();
        (KeyText::read(file).context(name.clone())?, name)
    };
    let key = match text.as_str().starts_with("NVMeTLSkey") {
        true => text.as_str().parse().map(Key::Tls).context(name)?,
        false => text.as_str().parse().map(Key::Dhchap).context(name)?,
    };
    Ok(key)
}
