// write_corpus FOLDER: writes the seeds of codec_cases.h there.

#include <cstdio>
#include <fstream>

#include "tests/fuzz/codec_cases.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "write_corpus FOLDER\n");
    return 2;
  }
  for (const auto& [name, bytes] : shoal::fuzz::seeds()) {
    std::ofstream file(std::string(argv[1]) + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) {
      std::fprintf(stderr, "cannot write %s/%s\n", argv[1], name.c_str());
      return 1;
    }
  }
}
