# The blocks of one language in docs/porting.md, as a program whose errors name
# the lines of the document. The first block is for all, any other of C++ is a
# test.
#
#   awk -v language=cpp -f porting.awk docs/porting.md
BEGIN {
  if (language == "python") print "#!/usr/bin/python3"
  else print "#undef NDEBUG\n#include <cassert>\n\n#include \"gtest/gtest.h\""
}
$0 == "```" language {
  inside = 1
  if (language == "cpp") printf "#line %d \"%s\"\n", FNR, FILENAME
  if (language == "cpp" && ++blocks > 1) printf "TEST(Porting, Line%d) {", FNR
  print ""
  next
}
$0 == "```" && inside {
  inside = 0
  if (language == "cpp" && blocks > 1) print "}"
}
inside
