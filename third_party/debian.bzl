"""The repositories that Bazel 4.2.3 itself asks for, as Debian 12 installs them.

Nothing is downloaded. A workspace that uses shoal loads this one as well:

    local_repository(name = "shoal", path = "…")
    load("@shoal//third_party:debian.bzl", "debian_repositories")
    debian_repositories()
"""

# Debian's rules_cc 0.0.4 needs a newer Bazel, and the native rules do.
_RULES_CC = """
cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
objc_library = native.objc_library

def cc_flags_supplier(name, **kwargs):
    pass

def compiler_flag(name, **kwargs):
    pass
"""

# Bazel asks for it to run any test; only `bazel coverage` would use it.
_COVERAGE = """
filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
"""

def _files_impl(context):
    for path, content in context.attr.files.items():
        context.file(path, content, executable = False)

_files = repository_rule(
    implementation = _files_impl,
    attrs = {"files": attr.string_dict()},
)

def debian_repositories():
    for name, path in {
        "bazel_skylib": "tools/skylib",
        "platforms": "tools/platforms",
        "rules_java": "rules/java",
        "rules_proto": "rules/proto",
    }.items():
        native.local_repository(name = name, path = "/usr/share/bazel/" + path)
    _files(
        name = "rules_cc",
        files = {"cc/BUILD": "", "cc/defs.bzl": _RULES_CC},
    )
    _files(name = "remote_coverage_tools", files = {"BUILD": _COVERAGE})
