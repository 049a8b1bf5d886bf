#include <signal.h>

#include "cli/commands.h"

int main(int argc, char **argv) {
  // A full quota is an error of write(), not the end of the program; MPI writes files of its own
  // before a run installs its handlers.
  signal(SIGXFSZ, SIG_IGN);
  return (int)fn_cli(argc, argv);
}
