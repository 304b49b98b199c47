//! I/O of volumes with a limit: what may go on, and what waits for a slice of the budget that control has.

use pollux_nvme_tcp::rate_limit::{Ask, Cost, RateLimits, Throttle};

use super::{PollGroup, told_volume, volume_mut};
use crate::command::Op;
use crate::ids::{VolumeId, VolumeInfo};
use crate::io::in_flight::{InFlight, IoRequest};
use crate::messages::FromIo;

/// What an I/O costs. It is paid for once, however often it is tried.
fn cost(io: &InFlight, volume: &VolumeInfo) -> Cost {
    let bytes = u64::from(io.blocks) << volume.block_shift;
    match io.op {
        Op::Read => Cost::Read(bytes),
        Op::Write | Op::Compare => Cost::Write(bytes),
        Op::WriteZeroes | Op::Flush | Op::Deallocate => Cost::Free,
    }
}

impl PollGroup {
    /// Dispatches an I/O of a volume with a limit, or keeps it until there is a slice for it.
    #[cold]
    pub(super) fn submit_limited(&mut self, request: IoRequest) {
        let id = request.user.volume;
        let Some(volume) = volume_mut(&mut self.volumes, id) else {
            unreachable!("an I/O of a volume that is not here")
        };
        let cost = cost(&request.user, &volume.info);
        let admitted = match &mut volume.throttle {
            Some(throttle) => throttle.offer(cost, request),
            None => Some(request),
        };
        match admitted {
            Some(request) => self.retry(request),
            None => self.ask_for_slices(id),
        }
    }

    /// The limits of a volume are these from now on, which control calls by this number. What waits goes on, or waits for
    /// them.
    pub(crate) fn set_rate_limits(&mut self, id: VolumeId, number: u64, limits: RateLimits) {
        let throttle = &mut told_volume(&mut self.volumes, id).throttle;
        match throttle {
            Some(throttle) => throttle.set(number, limits),
            None => *throttle = Some(Box::new(Throttle::new(number, limits))),
        }
        self.release_limited(id);
    }

    /// Control grants a slice; the volume may have gone, or have another limit.
    pub(crate) fn granted(&mut self, id: VolumeId, number: u64, slice: Ask) {
        let volume = volume_mut(&mut self.volumes, id);
        if let Some(throttle) = volume.and_then(|volume| volume.throttle.as_mut()) {
            throttle.granted(number, slice);
            self.release_limited(id);
        }
    }

    /// Dispatches what there is a slice for.
    fn release_limited(&mut self, id: VolumeId) {
        while let Some(volume) = volume_mut(&mut self.volumes, id)
            && let Some(throttle) = &mut volume.throttle
        {
            let Some(request) = throttle.next_admitted() else {
                let is_over = throttle.waiting() == 0 && !throttle.limits().is_limited();
                volume.throttle.take_if(|_| is_over);
                break;
            };
            self.retry(request);
        }
        self.ask_for_slices(id);
    }

    fn ask_for_slices(&mut self, id: VolumeId) {
        let volume = volume_mut(&mut self.volumes, id);
        let Some(throttle) = volume.and_then(|volume| volume.throttle.as_mut()) else {
            return;
        };
        let number = throttle.id();
        let asks: Vec<Ask> = throttle.asks().collect();
        for ask in asks {
            self.post(FromIo::AskSlice {
                volume: id,
                number,
                ask,
            });
        }
    }
}
