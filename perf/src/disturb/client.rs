//! A client of the management interface: one request at a time over the Unix socket, as a monitoring script does it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// Without an answer for so long, the server has failed. Longer than any deadline that can be asked for.
const ANSWER_MAX: Duration = Duration::from_secs(630);

/// A connected client. Its calls block, so it is for ordinary threads.
pub struct Client {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    line: String,
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self {
            reader: BufReader::new(stream.try_clone()?),
            stream,
            line: String::new(),
        })
    }

    /// Calls a method and waits for its result; the inner error is the method's own.
    ///
    /// # Errors
    ///
    /// The connection broke, or the answer is none.
    pub fn call(&mut self, method: &str, params: &Value) -> anyhow::Result<Result<Value, String>> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.stream.write_all(request.to_string().as_bytes())?;
        self.line.clear();
        if self.reader.read_line(&mut self.line)? == 0 {
            bail!("the management interface closed the connection");
        }
        let mut answer: Value =
            serde_json::from_str(&self.line).context("an answer that is no JSON")?;
        if let Some(error) = answer.get("error") {
            return Ok(Err(error.to_string()));
        }
        match answer.get_mut("result") {
            Some(result) => Ok(Ok(result.take())),
            None => bail!("an answer without a result: {answer}"),
        }
    }

    /// As [`call`](Self::call), where the method must succeed.
    ///
    /// # Errors
    ///
    /// It did not.
    pub fn result(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        match self.call(method, params)? {
            Ok(result) => Ok(result),
            Err(error) => bail!("{method}: {error}"),
        }
    }
}
