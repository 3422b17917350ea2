// The main of every test program.

#include "gmock/gmock.h"
#include "tests/support/residue.h"

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  testing::AddGlobalTestEnvironment(new shoal::support::ResidueCheck);
  return RUN_ALL_TESTS();
}
