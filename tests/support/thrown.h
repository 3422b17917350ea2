#pragma once
// What a call throws, for errors whose text or code matters.
//
//   EXPECT_THAT(text_of_mismatch([] { Queue<int>::open("prices"); }),
//               HasSubstr("expected"));

#include <string>
#include <system_error>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"

namespace shoal::support {

template <class Call>
std::string text_of_mismatch(Call&& call) {
  try {
    call();
  } catch (const TypeMismatch& error) {
    return error.what();
  }
  return "no TypeMismatch";
}

// Of a std::system_error; 0: nothing is thrown.
template <class Call>
int code_of_refusal(Call&& call) {
  try {
    call();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

// The code, and `name` in the text.
template <class Call>
void is_system_error(Call&& call, std::errc expected, const std::string& name) {
  try {
    call();
    ADD_FAILURE() << "no error for " << name;
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), expected);
    EXPECT_THAT(error.what(), testing::HasSubstr(name));
  }
}

}  // namespace shoal::support
