#include "cli/commands.h"

int main(int argc, char **argv) {
  return (int)fn_cli(argc, argv);
}
