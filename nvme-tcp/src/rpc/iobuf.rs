//! `iobuf_set_options`, by which SPDK's programs are told the sizes of their pools of buffers.
//!
//! There are no such pools here: a host's I/O brings its own buffer, and the target stages data in memory that it takes as
//! hosts need it and shares between them. So the sizes are taken and change nothing; a buffer is never missing for want of
//! another number here.

use pollux_reactor::rpc::{Answer, Call, MethodResult, ModuleMethods, Phase};

/// Adds the method to a module.
pub fn register<S: Send + 'static>(module: ModuleMethods<'_, S>) -> ModuleMethods<'_, S> {
    module.method("iobuf_set_options", Phase::Any, set_options)
}

fn set_options<S>(_: &mut S, call: &mut Call<S>) -> MethodResult {
    let params = &mut call.params;
    params.unused::<u64>(&["small_pool_count", "large_pool_count"])?;
    params.unused::<u32>(&["small_bufsize", "large_bufsize"])?;
    params.unused::<bool>(&["enable_numa"])?;
    params.finish()?;
    log::info!(
        "iobuf_set_options changes nothing: there are no pools of buffers, memory is taken as it is needed"
    );
    Ok(Answer::Now(true.into()))
}
