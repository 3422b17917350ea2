#pragma once
// The part of queue_bench that sends strings of 8 bytes to 1 MiB.

namespace shoal::bench {

void add_payloads();
void report_payloads();

}  // namespace shoal::bench
