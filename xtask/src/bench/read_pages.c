/*
 * Reads pages of a dump one by one with libkdumpfile, as crates/vmcore/examples/read_pages.rs does with us: the same
 * arguments, the same checksum, the same time.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <libkdumpfile/kdumpfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PAGE_LEN = 4096 };

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Ends the program unless the library is content. */
static void check(kdump_ctx_t *dump, kdump_status status)
{
	if (status != KDUMP_OK) {
		fprintf(stderr, "libkdumpfile: %s\n", kdump_get_err(dump));
		exit(1);
	}
}

int main(int argc, char **argv)
{
	FILE *list = argc == 3 ? fopen(argv[2], "rb") : NULL;
	if (list == NULL || fseek(list, 0, SEEK_END) != 0) {
		fprintf(stderr, "usage: read_pages DUMP ADDRESSES\n");
		return 1;
	}
	size_t count = (size_t)ftell(list) / sizeof(uint64_t);
	uint64_t *addresses = malloc(count * sizeof *addresses);
	rewind(list);
	if (addresses == NULL || fread(addresses, sizeof *addresses, count, list) != count) {
		perror(argv[2]);
		return 1;
	}

	kdump_ctx_t *dump = kdump_new();
	int file = open(argv[1], O_RDONLY);
	if (dump == NULL || file < 0) {
		perror(argv[1]);
		return 1;
	}
	check(dump, kdump_open_fd(dump, file));

	static uint64_t page[PAGE_LEN / sizeof(uint64_t)];
	uint64_t checksum = 0;
	uint64_t start = now();
	for (size_t index = 0; index < count; index++) {
		size_t len = sizeof page;
		check(dump, kdump_read(dump, KDUMP_MACHPHYSADDR, addresses[index], page, &len));
		checksum = checksum << 1 | checksum >> 63;
		for (size_t word = 0; word < PAGE_LEN / sizeof *page; word++)
			checksum ^= page[word];
	}
	printf("%016" PRIx64 " %" PRIu64 "\n", checksum, now() - start);
	return 0;
}
