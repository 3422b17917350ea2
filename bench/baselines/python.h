#pragma once
// Peers written in Python, by a python3 of their own.
//
//   if (has_python("numpy")) ns = number(run_python(kProgram, "1000"));

#include <string>

namespace shoal::bench {

// That module can be imported.
bool has_python(const std::string& module = "multiprocessing");
// What the program prints. Throws std::runtime_error when it fails.
std::string run_python(const std::string& program,
                       const std::string& arguments = {});
// The same, of a program that prints a number.
double python_number(const std::string& program,
                     const std::string& arguments = {});

}  // namespace shoal::bench
