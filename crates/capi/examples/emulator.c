/*
 * A tiny emulator that dumps itself: 2 MiB of RAM, a flash behind a bus, two vCPUs.
 *
 * emulator FOLDER writes FOLDER/guest.vmcore, an ELF core, while the emulator waits, and FOLDER/guest.kdump, kdump-compressed, while it
 * goes on. It ends with 0 if all was as it should be.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vmcore.h>

enum { VCPUS = 2, RAM_LEN = 2 << 20, FLASH_LEN = 64 << 10 };
static const uint64_t FLASH_GPA = 0, RAM_GPA = 0x100000;

struct vcpu {
    uint64_t rip, rsp, cr3;
    uint8_t xmm0[16];
};

struct emulator {
    struct vcpu vcpus[VCPUS];
    uint8_t *ram;
    uint8_t flash[FLASH_LEN];
    bool is_running;
    int events;
};

/* What an emulator has anyway: its vCPU threads stand still, or go on. */
static int emulator_stop(void *opaque, bool *was_running)
{
    struct emulator *emulator = opaque;
    *was_running = emulator->is_running;
    emulator->is_running = false;
    return 0;
}

static void emulator_resume(void *opaque)
{
    struct emulator *emulator = opaque;
    emulator->is_running = true;
}

/* RAM is mapped in this process; the flash is not, so that it is read by a callback. */
static int emulator_memory(void *opaque, vmcore_memory *memory)
{
    struct emulator *emulator = opaque;
    vmcore_memory_add(memory, RAM_GPA, RAM_LEN, emulator->ram);
    vmcore_memory_add(memory, FLASH_GPA, FLASH_LEN, NULL);
    return 0;
}

static int emulator_read(void *opaque, uint64_t gpa, uint8_t *buffer, size_t len)
{
    struct emulator *emulator = opaque;
    const uint64_t offset = gpa - FLASH_GPA;
    /* The last page does not answer: in the dump it is zero, and counted. */
    if (offset + len > FLASH_LEN - 4096)
        return EIO;
    memcpy(buffer, emulator->flash + offset, len);
    return 0;
}

static uint32_t emulator_vcpu_count(void *opaque)
{
    (void)opaque;
    return VCPUS;
}

/* A name that is not right makes the dump fail, and is told: there is no need to look at each code. */
static int emulator_registers(void *opaque, uint32_t vcpu_index, vmcore_registers *registers)
{
    struct emulator *emulator = opaque;
    const struct vcpu *vcpu = &emulator->vcpus[vcpu_index];
    vmcore_registers_set_u64(registers, "rip", vcpu->rip);
    vmcore_registers_set_u64(registers, "rsp", vcpu->rsp);
    vmcore_registers_set_u64(registers, "cr3", vcpu->cr3);
    vmcore_registers_set(registers, "xmm0", vcpu->xmm0, sizeof vcpu->xmm0);
    return 0;
}

/* To be sent to the QMP client as the data of DUMP_COMPLETED. */
static void emulator_completed(void *opaque, const char *event)
{
    struct emulator *emulator = opaque;
    emulator->events++;
    printf("DUMP_COMPLETED %s\n", event);
}

static vmcore_dumper *new_dumper(struct emulator *emulator)
{
    vmcore_guest guest = {
        .size = sizeof guest,
        .opaque = emulator,
        .arch = "x86_64",
        .stop = emulator_stop,
        .resume = emulator_resume,
        .memory = emulator_memory,
        .vcpu_count = emulator_vcpu_count,
        .registers = emulator_registers,
        .read = emulator_read,
        .completed = emulator_completed,
    };
    vmcore_dumper *dumper;
    char *error;
    if (vmcore_dumper_new(&guest, &dumper, &error) != VMCORE_CODE_OK) {
        fprintf(stderr, "no dumps: %s\n", error);
        vmcore_string_free(error);
    }
    return dumper;
}

/* The monitor command: `arguments` are what the QMP client sent. */
static bool dump_guest_memory(vmcore_dumper *dumper, const char *arguments)
{
    char *error;
    if (vmcore_dump_guest_memory(dumper, arguments, &error) != VMCORE_CODE_OK) {
        printf("{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}}\n", error);
        vmcore_string_free(error);
        return false;
    }
    printf("{\"return\": {}}\n");
    return true;
}

static void query_dump(vmcore_dumper *dumper)
{
    char *answer = vmcore_query_dump(dumper);
    printf("{\"return\": %s}\n", answer);
    vmcore_string_free(answer);
}

static void expect(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "emulator: not as expected: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

/* The dump is complete, but for the page of the flash that does not answer. */
static void expect_complete(vmcore_dumper *dumper)
{
    vmcore_progress progress = { .size = sizeof progress };
    expect(vmcore_dump_progress(dumper, &progress) == VMCORE_CODE_OK, "progress");
    expect(progress.status == VMCORE_STATUS_COMPLETED, "the dump is complete");
    expect(progress.completed == progress.total && progress.total == RAM_LEN + FLASH_LEN, "all of it");
    expect(progress.unreadable == 4096, "one page could not be read");
}

static void power_on(struct emulator *emulator)
{
    for (size_t index = 0; index < VCPUS; index++) {
        struct vcpu *vcpu = &emulator->vcpus[index];
        *vcpu = (struct vcpu){ .rip = 0x100000 + index, .rsp = 0x108000 - 0x1000 * index, .cr3 = 0x101000 };
        memset(vcpu->xmm0, 0x10 + (int)index, sizeof vcpu->xmm0);
    }
    emulator->ram = calloc(RAM_LEN, 1);
    expect(emulator->ram != NULL, "memory");
    strcpy((char *)emulator->ram + 0x100000, "a guest of C");
    memset(emulator->flash, 0xf4, FLASH_LEN);
    emulator->is_running = true;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: emulator FOLDER\n");
        return EXIT_FAILURE;
    }
    struct emulator *emulator = calloc(1, sizeof *emulator);
    expect(emulator != NULL, "memory");
    power_on(emulator);
    vmcore_dumper *dumper = new_dumper(emulator);
    expect(dumper != NULL, "a dumper");

    char arguments[4096];
    snprintf(arguments, sizeof arguments, "{\"paging\": false, \"protocol\": \"file:%s/guest.vmcore\"}", argv[1]);
    expect(dump_guest_memory(dumper, arguments), "a dump");
    expect_complete(dumper);
    expect(emulator->is_running && emulator->events == 1, "the guest goes on");

    snprintf(arguments, sizeof arguments,
             "{\"paging\": false, \"protocol\": \"file:%s/guest.kdump\", \"format\": \"kdump-zlib\", \"detach\": true}",
             argv[1]);
    expect(dump_guest_memory(dumper, arguments), "a dump that is detached");
    query_dump(dumper);
    vmcore_dump_wait(dumper);
    expect_complete(dumper);
    expect(emulator->is_running && emulator->events == 2, "the guest goes on");

    expect(!dump_guest_memory(dumper, "{\"paging\": false, \"protocol\": \"file:/\"}"), "no dump takes the place of a folder");
    expect(emulator->is_running && emulator->events == 2, "the guest was not stopped for it");

    vmcore_dumper_free(dumper);
    free(emulator->ram);
    free(emulator);
    return EXIT_SUCCESS;
}
