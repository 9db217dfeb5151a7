/*
 * Which processors there are, of machines made of files; and the seats that follow from the
 * settings.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "server/devices.h"
#include "util/mem.h"
#include "util/numa.h"

struct machine {
    char root[64];
    struct numa numa;
};

static void put(const char *root, const char *name, const char *text)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Two sockets of two cores with two threads each: 0 1 4 5 on the first, 2 3 6 7 on the second. */
static int make_machine(void **state)
{
    struct machine *machine = mem_alloc(sizeof(*machine));
    (void)snprintf(machine->root, sizeof(machine->root), "/tmp/weir-numa-XXXXXX");
    assert_non_null(mkdtemp(machine->root));
    put(machine->root, "node/node0/cpulist", "0-1,4-5\n");
    put(machine->root, "node/node1/cpulist", "2-3,6-7\n");
    for (int cpu = 0; cpu < 8; cpu++) {
        char name[64];
        char siblings[16];
        (void)snprintf(name, sizeof(name), "cpu/cpu%d/topology/thread_siblings_list", cpu);
        (void)snprintf(siblings, sizeof(siblings), "%d,%d\n", cpu % 4, cpu % 4 + 4);
        put(machine->root, name, siblings);
    }
    *state = machine;
    return 0;
}

static int remove_machine(void **state)
{
    struct machine *machine = *state;
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -r %s", machine->root);
    assert_int_equal(system(command), 0);
    mem_free(machine);
    return 0;
}

static void read_with(struct machine *machine, const char *allowed)
{
    cpu_set_t cpus;
    assert_true(numa_parse(allowed, &cpus));
    numa_read(machine->root, &cpus, &machine->numa);
}

static void test_threads_are_spread_over_nodes_and_cores(void **state)
{
    struct machine *machine = *state;
    static const int order[] = { 0, 2, 1, 3, 4, 6, 5, 7 };
    read_with(machine, "0-7");
    assert_int_equal(machine->numa.nodes, 3);
    assert_int_equal(machine->numa.count, 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(machine->numa.cpus[i].cpu, order[i]);
        assert_int_equal(machine->numa.cpus[i].node, i % 2);
    }
}

static void test_only_processors_that_are_allowed_count(void **state)
{
    struct machine *machine = *state;
    read_with(machine, "2,3,7,9");
    assert_int_equal(machine->numa.count, 4);
    assert_int_equal(machine->numa.nodes,
                     3); /* Of 9 nothing is said: it counts to the first node. */
    cpu_set_t cpus;
    numa_node_cpus(&machine->numa, 0, &cpus);
    assert_true(CPU_COUNT(&cpus) == 1 && CPU_ISSET(9, &cpus));
    numa_node_cpus(&machine->numa, 1, &cpus);
    assert_true(CPU_COUNT(&cpus) == 3 && CPU_ISSET(7, &cpus));
}

static void test_a_machine_that_says_nothing_is_one_node(void **state)
{
    (void)state;
    struct numa *numa = mem_alloc(sizeof(*numa));
    cpu_set_t cpus;
    assert_true(numa_parse("0-2", &cpus));
    numa_read("/nowhere", &cpus, numa);
    assert_int_equal(numa->nodes, 1);
    assert_int_equal(numa->count, 3);
    numa_read(NUMA_SYSTEM, NULL, numa); /* This one. */
    assert_true(numa->count >= 1);
    mem_free(numa);
}

static void test_lists(void **state)
{
    (void)state;
    static const char *const bad[] = { "a", "1-", "3-1", "1,,2", "1,", "-1", "99999999999", "1 2" };
    cpu_set_t cpus;
    assert_true(numa_parse("0-2,8,10-11\n", &cpus));
    assert_int_equal(CPU_COUNT(&cpus), 6);
    assert_true(CPU_ISSET(11, &cpus) && !CPU_ISSET(9, &cpus));
    assert_true(numa_parse("", &cpus));
    assert_int_equal(CPU_COUNT(&cpus), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (numa_parse(bad[i], &cpus)) {
            fail_msg("'%s' is taken for a list of processors", bad[i]);
        }
    }
}

static void seat(struct devices *devices, const struct numa *numa, const char *processors, bool pin)
{
    struct weir_err err = { 0 };
    *devices = (struct devices){ .list = mem_alloc(sizeof(*devices->list)), .count = 1 };
    assert_int_equal(devices_seat(devices, processors, pin, numa, &err), WEIR_OK);
}

static void test_seats(void **state)
{
    struct machine *machine = *state;
    struct devices devices;
    read_with(machine, "0-7");
    seat(&devices, &machine->numa, "auto", false);
    assert_int_equal(devices.list[0].seat_count, 8);
    assert_int_equal(CPU_COUNT(&devices.seats[0].cpus), 4); /* The whole node. */
    assert_int_equal(devices.seats[0].node, 0);
    assert_int_equal(devices.seats[1].node, 1);
    devices_finish(&devices);
    seat(&devices, &machine->numa, "auto", true);
    assert_int_equal(CPU_COUNT(&devices.seats[1].cpus), 1);
    assert_true(CPU_ISSET(2, &devices.seats[1].cpus));
    devices_finish(&devices);
    seat(&devices, &machine->numa, "2,3", false);
    assert_int_equal(devices.list[0].seat_count, 2);
    assert_int_equal(CPU_COUNT(&devices.seats[0].cpus), 2);
    devices_finish(&devices);
    seat(&devices, &machine->numa, "off", false);
    assert_int_equal(devices.list[0].seat_count, 0);
    devices_finish(&devices);
}

static void test_one_node_changes_nothing(void **state)
{
    struct machine *machine = *state;
    struct devices devices;
    read_with(machine, "0-1");
    seat(&devices, &machine->numa, "auto", false);
    assert_int_equal(devices.list[0].seat_count, 0);
    devices_finish(&devices);
}

static void test_processors_that_are_none_are_refused(void **state)
{
    struct machine *machine = *state;
    static const char *const bad[] = { "many", "", "3-1", "64" };
    read_with(machine, "0-7");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct weir_err err = { 0 };
        struct devices devices = { .list = mem_alloc(sizeof(*devices.list)), .count = 1 };
        assert_int_equal(devices_seat(&devices, bad[i], false, &machine->numa, &err), WEIR_EINVAL);
        assert_non_null(strstr(err.text, "processors: found"));
        devices_finish(&devices);
    }
}

#define WITH_MACHINE(test) cmocka_unit_test_setup_teardown(test, make_machine, remove_machine)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_MACHINE(test_threads_are_spread_over_nodes_and_cores),
        WITH_MACHINE(test_only_processors_that_are_allowed_count),
        cmocka_unit_test(test_a_machine_that_says_nothing_is_one_node),
        cmocka_unit_test(test_lists),
        WITH_MACHINE(test_seats),
        WITH_MACHINE(test_one_node_changes_nothing),
        WITH_MACHINE(test_processors_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
