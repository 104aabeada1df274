/* src/backend.c and the life of the CPU backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend.h"
#include "error.h"

#include <dlfcn.h>
#include <string.h>

static void test_open_cpu(void **state)
{
    (void)state;
    struct backend be = {0};
    assert_int_equal(backend_open(&be, &(struct backend_choice){.device = "cpu", .threads = 2}), 0);
    assert_string_equal(be.ops->name, "cpu");
    assert_non_null(strstr(be.ops->describe(&be), "2 threads"));
    unsigned char *region = be.ops->region_alloc(&be, "test", 1000);
    assert_int_equal((uintptr_t)region % 64, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(region[i], 0);
    assert_null(be.ops->region_alloc(&be, "nothing", 0));
    assert_true(be.ops->memory_free(&be) > 1 << 20);
    assert_int_equal(be.ops->sync(&be), 0);
    be.ops->close(&be);
}

static void test_open_each_build(void **state)
{
    (void)state;
    static const char *const isa[] = {"plain", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        struct backend be = {0};
        const bool here = cpu_ops(isa[i]) != NULL;
        assert_int_equal(cpu_open(&be, isa[i], 1), here ? 0 : -1);
        if (here)
            be.ops->close(&be);
        else
            assert_non_null(strstr(error_message(), isa[i]));
    }
    assert_non_null(cpu_ops("plain"));
    assert_null(cpu_ops("mmx"));
}

static void test_open_refuses_what_is_not_there(void **state)
{
    (void)state;
    struct backend be = {0};
    assert_int_equal(backend_open(&be, &(struct backend_choice){.device = "tpu", .threads = 1}), -1);
    assert_non_null(strstr(error_message(), "tpu"));
    if (dlopen("libcuda.so.1", RTLD_NOW))
        skip(); /* this machine may have the module, too */
    assert_int_equal(backend_open(&be, &(struct backend_choice){.device = "cuda", .threads = 1}), -1);
    assert_non_null(strstr(error_message(), "driver"));
    assert_int_equal(backend_open(&be, &(struct backend_choice){.device = "auto", .threads = 1}), 0);
    assert_string_equal(be.ops->name, "cpu");
    be.ops->close(&be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_cpu),
        cmocka_unit_test(test_open_each_build),
        cmocka_unit_test(test_open_refuses_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
