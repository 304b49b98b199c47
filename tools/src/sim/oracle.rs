//! Which values a block may have: judges what is read.
//!
//! A block is a register that many write. What a write has put there may be seen from when it was submitted on, and no
//! longer once a later write, one that was submitted after this one had ended, has ended with success: then it is *over*.
//! A write that failed may have been carried out or not; one that was in doubt when it was handed back may yet be. What
//! was read once does not give way to what had ended before that. A crash brings back what was over, unless the write
//! that it gave way to was flushed.

use std::collections::BTreeMap;

use super::BLOCK;

/// Order of all that is submitted and ends.
pub type Order = u64;

/// Names what a write puts into its blocks. 0 is what was there at first: zeroes.
pub type Tag = u64;

/// How a write ended that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nobody carries it out any more.
    Ended,
    /// It may yet be carried out, but not after a later write of the same reactor.
    InDoubt,
    /// It may be carried out at any time.
    Loose,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    tag: Tag,
    is_zeroes: bool,
    /// The first block of what it writes, and how many.
    blocks: (u64, u32),
    writer: u32,
    start: Order,
    /// For all writers, and for the one that wrote it.
    end: Option<Order>,
    own_end: Option<Order>,
    /// When it was over.
    over: Option<Order>,
}

/// All blocks of all namespaces.
#[derive(Debug, Default)]
pub struct Oracle {
    now: Order,
    blocks: BTreeMap<(u32, u64), Vec<Value>>,
    /// Per namespace: the start of the last flush that succeeded.
    flushed: BTreeMap<u32, Order>,
    /// What was over may come back at any time: there is no fence.
    pub hazardous: bool,
    /// What was over comes back at a crash.
    pub volatile: bool,
    oldest_read: Vec<Order>,
    /// When the machine died last. What was under way then may have been carried out before.
    crashed: Order,
}

/// What a block holds that was written with a tag.
pub fn fill(block: &mut [u8], lba: u64, tag: Tag) {
    let words = block.chunks_exact_mut(8);
    for (index, word) in (0u64..).zip(words) {
        let value = match index {
            0 => tag,
            _ => (tag ^ lba << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index,
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// The tag of a block's content: `None` if nobody has written that.
fn tag_of(block: &[u8], lba: u64) -> Option<Tag> {
    let tag = Tag::from_le_bytes(block.get(..8)?.try_into().ok()?);
    let mut expected = [0; BLOCK];
    if tag != 0 {
        fill(&mut expected, lba, tag);
    }
    (expected == block).then_some(tag)
}

impl Oracle {
    /// The next place in the order.
    pub fn next(&mut self) -> Order {
        self.now += 1;
        self.now
    }

    fn values(&mut self, nsid: u32, lba: u64) -> &mut Vec<Value> {
        self.blocks.entry((nsid, lba)).or_insert_with(|| {
            vec![Value {
                tag: 0,
                is_zeroes: true,
                blocks: (0, 0),
                writer: u32::MAX,
                start: 0,
                end: Some(0),
                own_end: Some(0),
                over: None,
            }]
        })
    }

    /// A write is submitted; of zeroes if `is_zeroes`.
    pub fn write(&mut self, io: &Write, start: Order) {
        for lba in io.blocks() {
            self.values(io.nsid, lba).push(Value {
                tag: io.tag,
                is_zeroes: io.is_zeroes,
                blocks: (io.lba, io.blocks),
                writer: io.writer,
                start,
                end: None,
                own_end: None,
                over: None,
            });
        }
    }

    /// It has succeeded.
    pub fn written(&mut self, io: &Write, end: Order) {
        let oldest = self.oldest_read.iter().copied().min().unwrap_or(end);
        let (keep, hazardous, crashed) = (self.volatile, self.hazardous, self.crashed);
        let flushed = self.flushed.get(&io.nsid).copied().unwrap_or(0);
        for lba in io.blocks() {
            let values = self.values(io.nsid, lba);
            let Some(own) = values.iter_mut().find(|v| v.tag == io.tag) else {
                continue;
            };
            own.end = Some(end);
            own.own_end = Some(end);
            let start = own.start;
            if hazardous || start < crashed {
                continue;
            }
            for value in values.iter_mut() {
                let ended = match value.writer == io.writer {
                    true => value.own_end,
                    false => value.end,
                };
                if ended.is_some_and(|ended| ended < start) {
                    value.over.get_or_insert(end);
                }
            }
            values.retain(|v| {
                v.over
                    .is_none_or(|over| over >= oldest || (keep && over >= flushed))
            });
        }
    }

    /// It has failed.
    pub fn failed(&mut self, io: &Write, how: Failed, end: Order) {
        for lba in io.blocks() {
            for value in self.values(io.nsid, lba) {
                if value.tag == io.tag {
                    value.end = (how == Failed::Ended).then_some(end);
                    value.own_end = (how != Failed::Loose).then_some(end);
                }
            }
        }
    }

    /// A disk is about to carry out a write of these blocks, of zeroes if there is no data: one that has ended must not be
    /// carried out any more.
    ///
    /// # Errors
    /// What it is that must not.
    pub fn carries_out(
        &mut self,
        nsid: u32,
        (lba, count): (u64, u64),
        data: Option<&[u8]>,
    ) -> Result<(), String> {
        if self.hazardous {
            return Ok(());
        }
        let mut data = data.map(|data| data.chunks_exact(BLOCK));
        for at in lba..lba + count {
            let block = data.as_mut().and_then(Iterator::next);
            let tag = block.map(|block| tag_of(block, at));
            if tag == Some(None) {
                return Err(format!(
                    "block {at} of namespace {nsid}, with what nobody has written"
                ));
            }
            let values = self.values(nsid, at);
            let is_it = |v: &&Value| match tag.flatten() {
                Some(tag) => v.tag == tag && !v.is_zeroes,
                None => v.is_zeroes && (v.blocks.0, u64::from(v.blocks.1)) == (lba, count),
            };
            let of_it = values.iter().filter(is_it);
            let may_be = of_it.clone().any(|v| v.end.is_none() && v.over.is_none());
            if !may_be {
                let known: Vec<String> = of_it.map(|v| format!("{v:?}")).collect();
                let what = tag
                    .flatten()
                    .map_or("zeroes".into(), |tag| format!("write {tag:x}"));
                return Err(format!(
                    "{what} on block {at} of namespace {nsid}, which has ended before {}: {}",
                    self.now,
                    known.join("; ")
                ));
            }
        }
        Ok(())
    }

    /// A flush that was submitted at `start` has succeeded.
    pub fn flushed(&mut self, nsid: u32, start: Order) {
        if start >= self.crashed {
            let flushed = self.flushed.entry(nsid).or_default();
            *flushed = start.max(*flushed);
        }
    }

    /// The machine with the disks has died.
    pub fn crash(&mut self) {
        if !self.volatile {
            return;
        }
        self.crashed = self.next();
        for ((nsid, _), values) in &mut self.blocks {
            let flushed = self.flushed.get(nsid).copied().unwrap_or(0);
            for value in values {
                value.over = value.over.filter(|&over| over < flushed);
            }
        }
    }

    /// A read is submitted.
    pub fn read(&mut self) -> Order {
        let start = self.next();
        self.oldest_read.push(start);
        start
    }

    /// What a block may hold.
    pub fn likely(&mut self, nsid: u32, lba: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let values = self.values(nsid, lba);
        if let Some(value) = values.last().filter(|v| !v.is_zeroes) {
            fill(&mut block, lba, value.tag);
        }
        block
    }

    /// A read has ended without data.
    pub fn not_read(&mut self, start: Order) {
        self.oldest_read.retain(|&open| open != start);
    }

    /// A read has ended with data.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&mut self, nsid: u32, lba: u64, data: &[u8], start: Order) -> Result<(), String> {
        let end = self.next();
        self.not_read(start);
        for (lba, block) in (lba..).zip(data.chunks_exact(BLOCK)) {
            self.judge_block(nsid, lba, block, start, end)?;
        }
        Ok(())
    }

    fn judge_block(
        &mut self,
        nsid: u32,
        lba: u64,
        block: &[u8],
        start: Order,
        end: Order,
    ) -> Result<(), String> {
        let name = format!("block {lba} of namespace {nsid}");
        let Some(tag) = tag_of(block, lba) else {
            let seen: Vec<String> = block[..16].iter().map(|b| format!("{b:02x}")).collect();
            return Err(format!(
                "{name} holds what nobody has written: {}..",
                seen.concat()
            ));
        };
        let (hazardous, crashed) = (self.hazardous, self.crashed);
        let values = self.values(nsid, lba);
        let is_it = |v: &Value| match tag {
            0 => v.is_zeroes,
            _ => v.tag == tag && !v.is_zeroes,
        };
        let seen: Vec<Value> = values
            .iter()
            .copied()
            .filter(|v| is_it(v) && v.over.is_none_or(|over| over > start))
            .collect();
        if hazardous {
            return match values.iter().any(is_it) {
                true => Ok(()),
                false => Err(format!("{name} holds write {tag:x}, which is not its own")),
            };
        }
        let [first, others @ ..] = &seen[..] else {
            let known: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
            return Err(format!(
                "{name} read as write {tag:x} by a read from {start} to {end}, which is over: {}",
                known.join("; ")
            ));
        };
        if others.is_empty() && start >= crashed {
            // What had ended before this was read gives way to it.
            for value in values.iter_mut() {
                let ended = value.end.is_some_and(|ended| ended < start);
                if value.tag != first.tag && ended {
                    value.over.get_or_insert(end);
                }
            }
        }
        Ok(())
    }
}

/// A write, or zeroing, of some blocks.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub nsid: u32,
    pub lba: u64,
    pub blocks: u32,
    pub tag: Tag,
    pub is_zeroes: bool,
    /// The reactor, over all hosts.
    pub writer: u32,
}

impl Write {
    fn blocks(&self) -> std::ops::Range<u64> {
        self.lba..self.lba + u64::from(self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(tag: Tag) -> Write {
        Write {
            nsid: 1,
            lba: 5,
            blocks: 1,
            tag,
            is_zeroes: false,
            writer: 0,
        }
    }

    fn block(tag: Tag) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        if tag != 0 {
            fill(&mut block, 5, tag);
        }
        block
    }

    fn reads(oracle: &mut Oracle, tag: Tag) -> bool {
        let start = oracle.read();
        oracle.judge(1, 5, &block(tag), start).is_ok()
    }

    fn done(oracle: &mut Oracle, tag: Tag) {
        let start = oracle.next();
        oracle.write(&write(tag), start);
        let end = oracle.next();
        oracle.written(&write(tag), end);
    }

    #[test]
    fn the_last_write_is_read_and_none_before_it() {
        let mut oracle = Oracle::default();
        assert!(reads(&mut oracle, 0));
        done(&mut oracle, 1);
        done(&mut oracle, 2);
        assert!(reads(&mut oracle, 2));
        assert!(!reads(&mut oracle, 1) && !reads(&mut oracle, 0) && !reads(&mut oracle, 3));
    }

    #[test]
    fn of_writes_at_the_same_time_either_is_read_but_then_that_one() {
        let mut oracle = Oracle::default();
        for tag in [1, 2] {
            let start = oracle.next();
            oracle.write(&write(tag), start);
        }
        assert!(reads(&mut oracle, 0), "none has ended");
        for tag in [1, 2] {
            let end = oracle.next();
            oracle.written(&write(tag), end);
        }
        assert!(reads(&mut oracle, 1));
        assert!(!reads(&mut oracle, 2), "it gave way to the other");
        assert!(!reads(&mut oracle, 0));
    }

    #[test]
    fn a_failed_write_may_be_there_or_not_until_a_later_one() {
        for (how, later) in [
            (Failed::Ended, false),
            (Failed::InDoubt, false),
            (Failed::Loose, true),
        ] {
            let mut oracle = Oracle::default();
            done(&mut oracle, 1);
            let start = oracle.next();
            oracle.write(&write(2), start);
            let end = oracle.next();
            oracle.failed(&write(2), how, end);
            assert!(reads(&mut oracle, 2), "{how:?}");
            done(&mut oracle, 3);
            assert!(reads(&mut oracle, 3));
            assert_eq!(reads(&mut oracle, 2), later, "{how:?}");
        }
    }

    #[test]
    fn a_crash_takes_what_was_not_flushed() {
        let mut oracle = Oracle {
            volatile: true,
            ..Oracle::default()
        };
        done(&mut oracle, 1);
        let flush = oracle.next();
        oracle.flushed(1, flush);
        done(&mut oracle, 2);
        oracle.crash();
        assert!(!reads(&mut oracle, 0), "1 was flushed");
        assert!(reads(&mut oracle, 1));
        assert!(
            !reads(&mut oracle, 2),
            "it was lost, and does not come back"
        );
    }
}
