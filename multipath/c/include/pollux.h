/*
 * Pollux for C: NVMe/TCP volumes over several paths. Link with -lpollux.
 *
 * Functions return 0 or a count, or a negative errno; pollux_error() has the text of the last failure of the thread that asks.
 * Handles are numbers: one that is 0, closed, or of another kind is refused with -EBADF, whenever. Every function may be
 * called from any thread.
 *
 * Made by cbindgen from multipath/c/src; tests/header.rs compares it.
 */

#ifndef POLLUX_H
#define POLLUX_H

#include <stddef.h>
#include <stdint.h>

// The version of this header, as pollux_version() tells that of the library: 10,000 x major + 100 x minor + patch. Within one
// minor version of 0, and one major version from 1 on, what is there stays as it is.
#define POLLUX_VERSION 100

// Reads blocks into the buffer.
#define POLLUX_READ 0

// Writes blocks from the buffer.
#define POLLUX_WRITE 1

// Makes everything written before durable; no blocks, no buffer.
#define POLLUX_FLUSH 2

// Sets blocks to zero; no buffer.
#define POLLUX_WRITE_ZEROES 3

// Tells that the contents of blocks are no longer needed; no buffer.
#define POLLUX_DEALLOCATE 4

// Compares blocks with the buffer.
#define POLLUX_COMPARE 5

// A host: a thread of its own that has the connections and carries I/O. 0 is none.
typedef uint64_t pollux_host;

// A volume that was opened, with a queue for its I/O. 0 is none.
typedef uint64_t pollux_disk;

// What a disk is.
typedef struct pollux_disk_info {
  // Size in blocks, when it was opened.
  uint64_t blocks;
  // Bytes of a block.
  uint32_t block_size;
  // I/Os that may be under way at a time.
  uint32_t depth;
} pollux_disk_info;

// An I/O.
typedef struct pollux_io {
  // POLLUX_READ and so on.
  uint32_t op;
  // Number of blocks.
  uint32_t blocks;
  // First block.
  uint64_t lba;
  // The caller's memory, of any alignment, where the operation has data. What is written is taken from it at once; what is
  // read is put there by the poll or wait that brings the completion, and by nothing else.
  void *buffer;
  // Its bytes, at least those of the blocks.
  size_t length;
  // Whatever is to be found again in the completion.
  uint64_t user;
  // An I/O that has not ended after so long ends with -ETIMEDOUT; 0: never.
  uint64_t timeout_us;
} pollux_io;

// An I/O that has ended.
typedef struct pollux_completion {
  // As it was submitted.
  uint64_t user;
  // As it was submitted.
  void *buffer;
  // 0, or: -EIO an error of the volume, -ENXIO no path, -ENODEV the volume was removed, -ETIMEDOUT its time was over,
  // -EINVAL blocks outside the volume or no such volume, -ESHUTDOWN the host has ended.
  int32_t result;
  // With -EIO, the NVMe status that it ended with: status code type << 8 | status code; 0 if there is none.
  uint32_t status;
} pollux_completion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that is linked.
uint32_t pollux_version(void);

// What was wrong when a function last failed on this thread. It stands until this is called again on this thread.
const char *pollux_error(void);

// Opens a volume of a host, for which it waits for `timeout_ms` if it is not there yet, with a queue for `depth` I/Os at a
// time.
//
// `-ENOENT`: it is not there; `-EINVAL`: `depth` is 0 or more than 4,096, which is also what the disks of a host that share
// its queue pairs may have together; `-ESHUTDOWN`.
//
// # Safety
// `volume` is null or ends with a zero; `disk` is null or valid for a write.
int pollux_disk_open(pollux_host host,
                     const char *volume,
                     uint32_t depth,
                     uint32_t timeout_ms,
                     pollux_disk *disk);

// What it is.
//
// # Safety
// `info` is null or valid for a write.
int pollux_disk_get_info(pollux_disk disk, struct pollux_disk_info *info);

// Submits an I/O; never blocks. It ends exactly once, by a completion.
//
// `-EAGAIN`: the queue is full, until a completion was taken; `-EINVAL`; `-ESHUTDOWN`.
//
// # Safety
// `io` is null or valid for a read; its buffer has `length` bytes, until the completion is taken if it is read into.
int pollux_disk_submit(pollux_disk disk,
                       const struct pollux_io *io);

// Takes completions of I/Os that have ended, at most `max`, and says how many. Never blocks.
//
// `-EBUSY`: another thread is at it; `-EINVAL`.
//
// # Safety
// `completions` is valid for writes of `max` completions, and the buffers of I/Os that have read are still there.
int pollux_disk_poll(pollux_disk disk,
                     struct pollux_completion *completions,
                     uint32_t max);

// As pollux_disk_poll(), but if nothing has ended it waits until something has, at most for `timeout_ms`.
//
// `-EBUSY`: another thread is at it; `-EINVAL`.
//
// # Safety
// As pollux_disk_poll().
int pollux_disk_wait(pollux_disk disk,
                     struct pollux_completion *completions,
                     uint32_t max,
                     uint32_t timeout_ms);

// A descriptor (eventfd) for an event loop, which stays the disk's: it is readable when completions may be there, until
// pollux_disk_poll() has brought fewer than it was asked for. Nothing else needs to read it.
//
// `-EBUSY`: another thread is at taking completions; `-EMFILE`: the system has no descriptor left.
int pollux_disk_event_fd(pollux_disk disk);

// Aborts the I/O with this `user`, if it is under way. It ends in any case: with -EIO and a status of 7h if it was aborted.
//
// `-EAGAIN`: the host has too much to do, to be tried again; `-ESHUTDOWN`.
int pollux_disk_abort(pollux_disk disk,
                      uint64_t user);

// Closes a disk. I/O that is under way goes on, but no completion tells of it, and no buffer of the caller's is touched any
// more.
int pollux_disk_close(pollux_disk disk);

// Starts a host. Its thread is pinned to `core`, or to none if that is -1. Without work it spins for `spin_us` microseconds
// and then sleeps; if that is -1 it never sleeps.
//
// Each path has so many `queue_pairs`, that is TCP connections for I/O, with which disks take turns as they are opened: the
// first one has the first, and so on. More than 1 may help where the target has more cores, or one connection is not as fast
// as the network. Each selects paths by itself.
//
// `-EINVAL`: there is no such core, `queue_pairs` is 0 or more than 64, or `host` is null; `-EAGAIN`: the system gives no
// thread.
//
// # Safety
// `host` is null or valid for a write.
int pollux_host_start(int core,
                      int64_t spin_us,
                      uint32_t queue_pairs,
                      pollux_host *host);

// Connects a path, `transport` being such as "traddr:192.0.2.1 trsvcid:4420 subnqn:NQN", and waits until it is usable. Its
// namespaces are volumes called by `name`, "n", and the namespace's number: "disk0n1". A further path under the same name
// joins them.
//
// `-ECONNREFUSED`, `-ETIMEDOUT`: it cannot be connected; `-EEXIST`: it is there already; `-EINVAL`; `-ESHUTDOWN`.
//
// # Safety
// Both texts are null or end with a zero.
int pollux_host_attach(pollux_host host,
                       const char *name,
                       const char *transport);

// Detaches all paths of a name, and waits until they are gone. I/O that is under way on their volumes ends with `-ENODEV`.
//
// `-ENOENT`: there are none; `-ESHUTDOWN`.
//
// # Safety
// `name` is null or ends with a zero.
int pollux_host_detach(pollux_host host,
                       const char *name);

// Ends a host in good order, for which it takes no longer than `timeout_ms`, and its thread. Its disks stay open, but for
// I/O: what was under way ends with an error, and what is submitted then is refused with `-ESHUTDOWN`.
int pollux_host_stop(pollux_host host,
                     uint32_t timeout_ms);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* POLLUX_H */
