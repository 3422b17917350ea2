#pragma once
// The job that word_count and the last part of tour do: identifiers of C and
// C++ files, counted by this process alone and then by a pool.

#include <string>
#include <vector>

#include "shoal/examples/identifiers.h"

namespace word_count {

// The directories that the command line names, or the system's include
// directory. Relative ones start where `bazel run` was called.
std::vector<std::string> directories(std::vector<std::string> arguments);

// Counts twice, prints the figures, and says whether both counts are the same.
// Throws identifiers::NoInput when none of the files can be read.
bool run(std::vector<identifiers::File> files, int processes);

}  // namespace word_count
