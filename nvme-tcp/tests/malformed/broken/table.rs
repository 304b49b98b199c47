//! Tables of broken bytes: what a row is, and how all rows of a table are run.

use pollux_nvme_tcp::testing::wire::Checked;

type Bytes<A> = Box<dyn Fn(&A) -> Vec<Vec<u8>>>;

/// One connection: in order up to `stage`, then broken by `bytes`, which may depend on what is at hand then.
pub struct Row<Stage, Expect, At> {
    pub name: String,
    pub stage: Stage,
    pub expect: Expect,
    /// PDUs, the last of which is at fault.
    pub bytes: Bytes<At>,
    /// Send byte by byte.
    pub slowly: bool,
}

impl<Stage, Expect, At> Row<Stage, Expect, At> {
    pub fn new(
        name: impl Into<String>,
        stage: Stage,
        expect: Expect,
        bytes: impl Fn(&At) -> Vec<Vec<u8>> + 'static,
    ) -> Self {
        Row {
            name: name.into(),
            stage,
            expect,
            bytes: Box::new(bytes),
            slowly: false,
        }
    }

    /// Sends the row's bytes with `send`, which is given what goes in a segment of its own. Returns the PDU at fault.
    pub fn send(&self, at: &At, mut send: impl FnMut(&[u8]) -> Checked<()>) -> Checked<Vec<u8>> {
        let pdus = (self.bytes)(at);
        let all = pdus.concat();
        let step = if self.slowly { 1 } else { all.len().max(1) };
        all.chunks(step).try_for_each(&mut send)?;
        Ok(pdus.last().cloned().unwrap_or_default())
    }
}

/// FES and FEI for a wrong header digest: the digest as it was sent.
pub fn wrong_header_digest(offending: &[u8]) -> (u16, u32) {
    let at = usize::from(offending[2]);
    let sent = offending[at..at + 4].try_into().map(u32::from_le_bytes);
    (3, sent.unwrap_or(0))
}

/// Runs all rows beside a connection that is in order; after each, `check` shows that it was not disturbed. Returns
/// what failed.
pub fn run_all<R, Other>(
    rows: impl IntoIterator<Item = (String, R)>,
    other: &mut Other,
    run: impl Fn(R, &Other) -> Checked<()>,
    check: impl Fn(&mut Other) -> Checked<()>,
) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, row) in rows {
        if let Err(what) = run(row, other) {
            failures.push(format!("{name}: {what}"));
        }
        if let Err(what) = check(other) {
            failures.push(format!("{name} disturbs another connection: {what}"));
            break;
        }
    }
    failures
}

/// Fails with all that failed.
pub fn report(failures: &[String], rows: usize) {
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} of {rows} rows:\n{}",
        failures.join("\n")
    );
}
