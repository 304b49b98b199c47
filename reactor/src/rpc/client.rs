//! A client, for ordinary threads: its calls block.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::de::IoRead;
use serde_json::{Deserializer, StreamDeserializer, Value, json};

use super::token::Token;

type Answers = StreamDeserializer<'static, IoRead<BufReader<Box<dyn Read + Send>>>, Value>;

/// A connection to a program that is managed, over which one call is made after the other.
///
/// ```no_run
/// use pollux_reactor::rpc::Client;
///
/// let mut client = Client::connect("/run/pollux.sock".as_ref(), None)?;
/// for name in client.call("rpc_get_methods", None)?.as_array().into_iter().flatten() {
///     println!("{name}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    requests: Box<dyn Write + Send>,
    answers: Answers,
    last_id: u64,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    ///
    /// # Errors
    /// Nobody listens there, or what else the system says.
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

    /// Shows the token of a program that is managed over TCP, which has to be the first call.
    ///
    /// # Errors
    /// It is another one, or there was no answer.
    pub fn authorize(&mut self, token: &Token) -> Result<(), CallError> {
        let params = json!({"token": token.text()});
        self.call("pollux_authorize", Some(params)).map(drop)
    }

    /// Calls a method and waits for its result. After an error other than [`CallError::Refused`] the connection is of no
    /// use any more.
    ///
    /// # Errors
    /// The method has failed, or there was no answer.
    pub fn call(&mut self, method: &str, params: Option<Value>) -> Result<Value, CallError> {
        self.send(method, params)?;
        let mut answer = self.answer()?;
        if let Some(error) = answer.get("error") {
            return Err(CallError::Refused {
                method: method.to_owned(),
                message: error["message"].as_str().unwrap_or("no text").to_owned(),
                code: error["code"].as_i64().unwrap_or(0),
            });
        }
        Ok(answer.get_mut("result").map_or(Value::Null, Value::take))
    }

    /// Sends a request without waiting for its answer. Returns its `id`.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn send(&mut self, method: &str, params: Option<Value>) -> io::Result<u64> {
        self.last_id += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method});
        if let Some(params) = params {
            request["params"] = params;
        }
        self.requests.write_all(request.to_string().as_bytes())?;
        Ok(self.last_id)
    }

    /// Waits for the next answer: an object with `id` and `result` or `error`.
    ///
    /// # Errors
    /// There is none.
    pub fn answer(&mut self) -> Result<Value, CallError> {
        match self.answers.next() {
            None => Err(CallError::Closed),
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) if error.is_eof() => Err(CallError::Closed),
            Some(Err(error)) => Err(CallError::NoAnswer(error.to_string())),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("last_id", &self.last_id)
            .finish_non_exhaustive()
    }
}
