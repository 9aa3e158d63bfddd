/*
 * libvmcore: dump-guest-memory for emulators in C and C++.
 *
 * An emulator describes its guest (struct vmcore_guest), makes a dumper of it (vmcore_dumper_new), and hands the JSON of QMP's
 * dump-guest-memory, query-dump and query-dump-guest-memory-capability through. The guide is docs/embedding-c.md.
 *
 * No panic crosses this interface: a defect of the library is VMCORE_CODE_PANIC. A null pointer where none is allowed is an error.
 * Structs that begin with their size may grow; set it to sizeof.
 *
 * Made by cbindgen of crates/capi; `cargo xtask golden` makes it anew.
 */


#ifndef VMCORE_H
#define VMCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * How a call ended.
 */
typedef enum vmcore_code {
    /**
     * As it should.
     */
    VMCORE_CODE_OK = 0,
    /**
     * The caller's mistake: a null pointer, a string that is not UTF-8 or not JSON, an unknown name.
     */
    VMCORE_CODE_ARGUMENT = 1,
    /**
     * The dump was refused, it failed, or it was cancelled. Towards QMP this is an error of class `GenericError`, and the message
     * its description.
     */
    VMCORE_CODE_FAILED = 2,
    /**
     * A defect of this library. The guest runs again if it ran before.
     */
    VMCORE_CODE_PANIC = 3,
} vmcore_code;

/**
 * Where a dump stands.
 */
typedef enum vmcore_status {
    /**
     * There was no dump yet.
     */
    VMCORE_STATUS_NONE = 0,
    /**
     * A dump is under way.
     */
    VMCORE_STATUS_ACTIVE = 1,
    /**
     * The last dump is complete.
     */
    VMCORE_STATUS_COMPLETED = 2,
    /**
     * The last dump has failed, or was cancelled.
     */
    VMCORE_STATUS_FAILED = 3,
} vmcore_status;

/**
 * Dumps one guest, one dump at a time. A process may have any number of them.
 *
 * Its functions may be called from any thread, also at the same time; only `vmcore_dumper_free` must be the last one.
 */
typedef struct vmcore_dumper vmcore_dumper;

/**
 * The map of guest memory, which a callback fills in. It is valid until that returns.
 */
typedef struct vmcore_memory vmcore_memory;

/**
 * The registers of one vCPU, which a callback fills in. They are valid until it returns.
 */
typedef struct vmcore_registers vmcore_registers;

/**
 * What an emulator tells of its guest.
 *
 * Callbacks are called from the thread that calls `vmcore_dump_guest_memory` or from threads of a dump. They may call
 * `vmcore_query_dump`, `vmcore_dump_progress` and `vmcore_dump_cancel`, and no other function of a dumper. They must not throw
 * an exception nor `longjmp` out: that ends the process. Those that give an `int` give 0, or an errno value of either sign.
 *
 * `memset` it to zero, set `size`, then what there is; what is marked as optional may be null.
 */
typedef struct vmcore_guest {
    /**
     * `sizeof(struct vmcore_guest)`. Fields may be added at the end; a caller that does not know them goes on to work.
     */
    size_t size;
    /**
     * The first argument of each callback.
     */
    void *opaque;
    /**
     * Its architecture, as in `x86_64`: a string that `vmcore_dumper_new` copies.
     */
    const char *arch;
    /**
     * Stops all vCPUs and devices, and returns when they stand still and nobody writes to guest memory. Tells whether the guest ran
     * in `was_running`. If it fails, the guest is as it was.
     */
    int (*stop)(void *opaque, bool *was_running);
    /**
     * Lets the guest go on. Called once for each `stop` that told that the guest ran, whatever becomes of the dump, and as the last
     * of its calls.
     */
    void (*resume)(void *opaque);
    /**
     * Describes the guest's memory with `vmcore_memory_add`. Called while the guest is stopped, for each dump anew.
     */
    int (*memory)(void *opaque, struct vmcore_memory *memory);
    /**
     * How many vCPUs there are. Called while the guest is stopped.
     */
    uint32_t (*vcpu_count)(void *opaque);
    /**
     * Tells the registers of one vCPU with `vmcore_registers_set_u64` and `vmcore_registers_set`. Called while the guest is stopped,
     * for each vCPU in turn, from 0 on.
     */
    int (*registers)(void *opaque, uint32_t vcpu_index, struct vmcore_registers *registers);
    /**
     * Optional, if all memory is mapped. Copies `len` bytes of guest memory at `gpa`, which lie in one region, to `buffer`, all or none.
     * Where it fails it is asked for each page alone; pages that fail are zero in the dump, and counted. Called by one
     * thread at a time, but not always the same.
     */
    int (*read)(void *opaque, uint64_t gpa, uint8_t *buffer, size_t len);
    /**
     * Optional: the note of the guest's kernel, by which drgn, crash and makedumpfile find their way. Copies to `file` the 16 bytes
     * that the guest wrote to the file `etc/vmcoreinfo` of its fw_cfg; fails if it wrote none. A note that is not good is left out.
     */
    int (*vmcoreinfo)(void *opaque, uint8_t *file);
    /**
     * Optional: the file descriptor that is meant by `"protocol": "fd:NAME"`, or -1. The dump closes it when it ends.
     */
    int (*fd)(void *opaque, const char *name);
    /**
     * Optional: a dump has been written, or has failed on the way. `event` is the data of QMP's event `DUMP_COMPLETED` in JSON, valid
     * during the call. The guest does not run yet.
     */
    void (*completed)(void *opaque, const char *event);
} vmcore_guest;

/**
 * How far a dump is, in numbers.
 */
typedef struct vmcore_progress {
    /**
     * `sizeof(struct vmcore_progress)`, which the caller sets. Fields may be added at the end.
     */
    size_t size;
    /**
     * Where it stands.
     */
    enum vmcore_status status;
    /**
     * Bytes of guest memory that are done, before compression.
     */
    uint64_t completed;
    /**
     * Bytes of guest memory that the dump holds.
     */
    uint64_t total;
    /**
     * Of the last dump, if it is complete: bytes of guest memory that could not be read. They are zero in the dump.
     */
    uint64_t unreadable;
    /**
     * Of the last dump, if it is complete: its length in bytes.
     */
    uint64_t file_len;
} vmcore_progress;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, as in `0.1.0`. It is never freed.
 */
const char *vmcore_version(void);

/**
 * Frees a string that a function of this library gave. Null is fine.
 *
 * # Safety
 * `text` came from this library and was not freed yet.
 */
void vmcore_string_free(char *text);

/**
 * Makes a dumper of a guest. `guest` is copied, with the name of its architecture; what its callbacks need must stay until
 * `vmcore_dumper_free` returns.
 *
 * On success `*dumper` is set, else it becomes null, and `*error` is what is wrong, to be freed with `vmcore_string_free`. `error` may be
 * null; on success `*error` becomes null. So it is for all functions that have an `error`.
 *
 * # Safety
 * `guest` is as `vmcore_guest` says; `dumper` may be written; `error` is null or may be written.
 */
enum vmcore_code vmcore_dumper_new(const struct vmcore_guest *guest,
                                   struct vmcore_dumper **dumper,
                                   char **error);

/**
 * Frees a dumper. A dump under way is cancelled first, and waited for. Null is fine. Not to be called by a callback.
 *
 * # Safety
 * `dumper` came from `vmcore_dumper_new`, was not freed yet, and nobody uses it any more.
 */
void vmcore_dumper_free(struct vmcore_dumper *dumper);

/**
 * `dump-guest-memory`: stops the guest, writes its dump, and lets it go on if it ran.
 *
 * `arguments` are those of the QMP command in JSON, as in
 * `{"paging": false, "protocol": "file:/tmp/guest.vmcore", "format": "kdump-zlib", "detach": true}`. A dump that is detached is written in
 * a thread of its own: what then goes wrong is told by `vmcore_guest.completed` and `vmcore_query_dump`.
 *
 * # Safety
 * `dumper` is null or a dumper; `arguments` is a string that ends with NUL; `error` is null or may be written.
 */
enum vmcore_code vmcore_dump_guest_memory(const struct vmcore_dumper *dumper,
                                          const char *arguments,
                                          char **error);

/**
 * `query-dump`: its answer in JSON, to be freed with `vmcore_string_free`; null if `dumper` is.
 *
 * # Safety
 * `dumper` is null or a dumper.
 */
char *vmcore_query_dump(const struct vmcore_dumper *dumper);

/**
 * `query-dump-guest-memory-capability`: its answer in JSON, to be freed with `vmcore_string_free`.
 */
char *vmcore_query_dump_guest_memory_capability(void);

/**
 * How far the dump is, in numbers.
 *
 * # Safety
 * `dumper` is null or a dumper; `progress` is null or points to as many bytes as its `size` says.
 */
enum vmcore_code vmcore_dump_progress(const struct vmcore_dumper *dumper, struct vmcore_progress *progress);

/**
 * Lets the dump that is under way fail soon. Null is fine.
 *
 * # Safety
 * `dumper` is null or a dumper.
 */
void vmcore_dump_cancel(const struct vmcore_dumper *dumper);

/**
 * Waits for the end of a detached dump, when the guest runs again. Null is fine. Not to be called by a callback.
 *
 * # Safety
 * `dumper` is null or a dumper.
 */
void vmcore_dump_wait(const struct vmcore_dumper *dumper);

/**
 * Adds a region of RAM, or of ROM: `len` bytes at the guest physical address `gpa`. Regions come in any order, and do not overlap.
 *
 * Where the guest's memory is mapped in this process, `host` points to its bytes; they are read from there, by several threads,
 * and must stay valid and unchanged until the dump ends. Else `host` is null, and `vmcore_guest.read` reads the region.
 * Ranges that are not added, those of devices among them, are not in the dump.
 *
 * A region that is impossible also makes the dump fail, with a message that names it: to look at the code is not necessary.
 *
 * # Safety
 * `memory` is what the callback was given; `host` is null, or has `len` bytes as told above.
 */
enum vmcore_code vmcore_memory_add(struct vmcore_memory *memory,
                                   uint64_t gpa,
                                   uint64_t len,
                                   const void *host);

/**
 * Sets a register of at most 64 bits.
 *
 * Names are those of the architecture's manual in lower case: `vmcore_list_registers` lists them. A register that is not set is
 * unknown, which is another thing than zero. An unknown name, or a value that is too large, also makes the dump fail, with
 * a message that names it: to look at the code is not necessary.
 *
 * # Safety
 * `registers` is what the callback was given; `name` is a string that ends with NUL.
 */
enum vmcore_code vmcore_registers_set_u64(struct vmcore_registers *registers,
                                          const char *name,
                                          uint64_t value);

/**
 * Sets a register of any width: `len` bytes from `value` on, least significant byte first whatever the guest's byte order.
 * Bytes that are not given are zero. The rest is as `vmcore_registers_set_u64` says.
 *
 * # Safety
 * `registers` is what the callback was given; `name` is a string that ends with NUL; `value` has `len` bytes.
 */
enum vmcore_code vmcore_registers_set(struct vmcore_registers *registers,
                                      const char *name,
                                      const uint8_t *value,
                                      size_t len);

/**
 * The registers of an architecture: a JSON array of `{"name": "rax", "bits": 64}`, or null with an error.
 *
 * To be freed with `vmcore_string_free`, as is the error.
 *
 * # Safety
 * `arch` is a string that ends with NUL; `error` is null or may be written.
 */
char *vmcore_list_registers(const char *arch, char **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VMCORE_H */
