//! `pollux key`: keys for in-band authentication (DH-HMAC-CHAP), in files.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use pollux_nvme_tcp::auth::{Hash, KeyText, Secret};
use pollux_nvme_tcp::spec::HostNqn;
use serde_json::json;

use crate::UsageError;
use crate::probe::{Text, print};

const EXAMPLES: &str = "\
Examples:
  pollux key gen -o host.key                 a new key in a new file, mode 0600
  pollux key gen --hmac sha384 --length 48   transformed with its owner's NQN
  pollux key check host.key                  is it whole, and of which kind
  pollux key derive host.key --nqn NQN       as it is used by this owner, for
                                             peers that do not transform keys

A key is one line, DHHC-1:HH:BASE64:, as 'nvme gen-dhchap-key' makes them. Its
file must not be accessible to group and others. Exit code: 0, 1 (no key, or a
file cannot be used), 2 (wrong usage).";

/// Make and check keys for in-band authentication (DH-HMAC-CHAP).
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum KeyCommand {
    /// Make a new key.
    Gen(GenArgs),
    /// Say what kind of key a file holds, and nothing of the key.
    Check(CheckArgs),
    /// Print the key that another one becomes with the NQN of its owner.
    Derive(DeriveArgs),
}

/// Arguments of `pollux key gen`.
#[derive(Debug, Args)]
pub struct GenArgs {
    /// Hash function that transforms the key with its owner's NQN before each use.
    #[arg(long, value_enum, default_value = "none")]
    hmac: Hmac,

    /// Length in bytes: 32, 48 or 64; by default that of the hash function.
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

    /// File to make, with mode 0600; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
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
        KeyCommand::Gen(args) => {
            let hash = args.hmac.hash();
            let length = args.length.unwrap_or(hash.map_or(32, Hash::size));
            let secret = Secret::generate(length, hash).context("no random bytes")?;
            put(&secret, args.output.as_ref())
        }
        KeyCommand::Check(args) => {
            let secret = read(&args.file)?;
            let (length, hash) = (secret.size(), secret.transform().map(Hash::name));
            let mut text = Text::default();
            text.line(&format!(
                "a DH-HMAC-CHAP key of {length} bytes, {}",
                match hash {
                    Some(hash) => format!("transformed by {hash} with the NQN of its owner"),
                    None => "used as it is".into(),
                }
            ));
            let document = json!({ "type": "DHHC-1", "bytes": length, "transform": hash });
            print(args.json, &document, &text)
        }
        KeyCommand::Derive(args) => {
            HostNqn::new(&args.nqn).map_err(|error| UsageError(format!("--nqn: {error}")))?;
            let secret = read(&args.file)?;
            put(
                &secret.transformed(&args.nqn).to_secret(),
                args.output.as_ref(),
            )
        }
    }
}

fn put(secret: &Secret, file: Option<&PathBuf>) -> anyhow::Result<()> {
    let text = secret.to_text();
    match file {
        Some(file) => KeyText::new(text.to_string())
            .write_new(file)
            .with_context(|| file.display().to_string()),
        None => {
            println!("{}", text.as_str());
            Ok(())
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Secret> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        let input = std::io::stdin();
        input
            .take(1024)
            .read_to_string(&mut text)
            .context("standard input")?;
        return KeyText::new(text)
            .as_str()
            .parse()
            .context("standard input");
    }
    Secret::read(file).with_context(|| file.display().to_string())
}
