//! A client of a program that is managed by JSON-RPC.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::de::IoRead;
use serde_json::{Deserializer, StreamDeserializer, Value, json};

/// A connection, over which one call is made after the other.
pub struct Client {
    requests: Box<dyn Write + Send>,
    answers: StreamDeserializer<'static, IoRead<BufReader<Box<dyn Read + Send>>>, Value>,
    last_id: u64,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The method has failed.
    #[error("{method}: {message} (code {code})")]
    Refused {
        /// The method.
        method: String,
        /// What the program says.
        message: String,
        /// Its code for it.
        code: i64,
    },
    /// The program has closed the connection.
    #[error("the connection was closed without an answer")]
    Closed,
    /// Nothing has come in time, or what has come is no answer.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The request could not be sent.
    #[error("the request could not be sent: {0}")]
    NotSent(#[from] io::Error),
}

impl Client {
    /// Connects to a Unix socket, or to a loopback address and port. An answer that takes longer than `timeout` is an
    /// error; `None` waits for ever.
    pub fn connect(socket: &Path, timeout: Option<Duration>) -> io::Result<Client> {
        let addr = socket.to_str().and_then(|s| s.parse::<SocketAddr>().ok());
        let (requests, answers): (Box<dyn Write + Send>, Box<dyn Read + Send>) = match addr {
            Some(addr) => {
                let stream = TcpStream::connect(addr)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                (Box::new(stream.try_clone()?), Box::new(stream))
            }
            None => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                (Box::new(stream.try_clone()?), Box::new(stream))
            }
        };
        Ok(Client {
            requests,
            answers: Deserializer::from_reader(BufReader::new(answers)).into_iter(),
            last_id: 0,
        })
    }

    /// Calls a method and waits for its result. After an error other than [`CallError::Refused`] the connection is of no
    /// use any more.
    pub fn call(&mut self, method: &str, params: Option<Value>) -> Result<Value, CallError> {
        self.last_id += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method});
        if let Some(params) = params {
            request["params"] = params;
        }
        self.requests.write_all(request.to_string().as_bytes())?;
        let mut answer = match self.answers.next() {
            None => return Err(CallError::Closed),
            Some(Ok(answer)) => answer,
            Some(Err(error)) if error.is_eof() => return Err(CallError::Closed),
            Some(Err(error)) => return Err(CallError::NoAnswer(error.to_string())),
        };
        if let Some(error) = answer.get("error") {
            return Err(CallError::Refused {
                method: method.to_owned(),
                message: error["message"].as_str().unwrap_or("no text").to_owned(),
                code: error["code"].as_i64().unwrap_or(0),
            });
        }
        Ok(answer.get_mut("result").map_or(Value::Null, Value::take))
    }
}
