"""What every library, test, bench and example of shoal has in common."""

_COPTS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wno-sign-conversion",  # part of -Wconversion for clang, not for g++
]

# g++ compiles a test a quarter faster so. The libraries, benches, examples, and
# tests that step through what is compiled (kill_test) are optimised as for users.
_TEST_COPTS = _COPTS + select({
    "//:opt": ["-O1"],
    "//conditions:default": [],
})

_LINKOPTS = ["-pthread"]

# For tests/support/asan_fork.cc.
_STATIC_ASAN = select({
    "//:asan": ["-static-libasan"],
    "//conditions:default": [],
})

def _sources(name, srcs):
    return [name + ".cc"] if srcs == None else srcs

def shoal_library(name, hdrs = None, **kwargs):
    """A library whose header <package>/x.h is included as "shoal/<package>/x.h"."""
    package = native.package_name()
    native.cc_library(
        name = name,
        hdrs = [name + ".h"] if hdrs == None else hdrs,
        copts = _COPTS + kwargs.pop("copts", []),
        include_prefix = "shoal/" + package if package else "shoal",
        linkopts = _LINKOPTS + kwargs.pop("linkopts", []),
        linkstatic = True,
        **kwargs
    )

def support_library(name, **kwargs):
    """A library for tests or benches, included by its path from the top."""
    native.cc_library(
        name = name,
        testonly = True,
        copts = _COPTS,
        linkopts = _LINKOPTS,
        linkstatic = True,
        **kwargs
    )

def shoal_test(name, srcs = None, deps = [], tags = [], size = None, **kwargs):
    """A GoogleTest program that also fails when it leaves something behind.

    Tags:
      tsan: runs under --config=tsan as well
      noasan: does not run under --config=asan
      shared_asan: with the shared library of ASan, as users have it
      ptrace: traces its children, which LeakSanitizer does not survive
      heavy: not part of //...; .ci/run calls it, and so can you by name
      exclusive: nothing else runs beside it
    """
    heavy = "heavy" in tags
    env = {"LSAN_OPTIONS": "detect_leaks=0"} if "ptrace" in tags else {}
    env.update(kwargs.pop("env", {}))
    native.cc_test(
        name = name,
        srcs = _sources(name, srcs),
        copts = _TEST_COPTS + kwargs.pop("copts", []),
        env = env,
        linkopts = _LINKOPTS + kwargs.pop("linkopts", []) +
                   ([] if "shared_asan" in tags else _STATIC_ASAN),
        linkstatic = True,
        size = size or ("large" if heavy else "small"),
        tags = tags + (["manual"] if heavy else []),
        deps = deps + [
            "//tests/support:main",
            "//third_party:gtest",
        ],
        **kwargs
    )

def kill_test(name, deps = []):
    """A test that steps and kills: as NAME, and in fence mode as NAME_fence.

    .ci/run limits what each case may take (SHOAL_KILL_SECONDS), and has no time
    for fence mode, which is run by name.
    """

    # Compiled once for both.
    native.cc_library(
        name = name + "_cases",
        testonly = True,
        srcs = [name + ".cc"],
        alwayslink = True,
        copts = _COPTS,
        linkstatic = True,
        tags = ["manual"],
        deps = deps + ["//third_party:gtest"],
    )
    for suffix, env in {"": {}, "_fence": {"SHOAL_BARRIER": "fence"}}.items():
        shoal_test(
            name = name + suffix,
            srcs = [],
            size = "enormous",
            env = env,
            tags = [
                "heavy",
                "ptrace",
            ] + (["long"] if suffix else []),
            deps = [":" + name + "_cases"],
        )

def shoal_bench(name, srcs = None, deps = [], tags = [], **kwargs):
    """A Google Benchmark program; with --smoke it only shows that it runs."""
    native.cc_binary(
        name = name,
        testonly = True,
        srcs = _sources(name, srcs),
        copts = _COPTS + kwargs.pop("copts", []),
        linkopts = _LINKOPTS,
        tags = tags + ["bench"],
        deps = deps + [
            "//bench/support:main",
            "//third_party:benchmark",
        ],
        **kwargs
    )

def shoal_example(name, srcs = None, deps = [], tags = [], **kwargs):
    """A program that uses shoal as others do; .ci/run starts it without arguments."""
    native.cc_binary(
        name = name,
        srcs = _sources(name, srcs),
        copts = _COPTS,
        linkopts = _LINKOPTS,
        tags = tags + ["example"],
        deps = deps + ["//:shoal"],
        **kwargs
    )
