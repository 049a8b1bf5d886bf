#include <fieldnet/fieldnet.h>
#include <stdio.h>

int main(void) {
  printf("fieldnet %s\n", fn_version());
  return FN_OK;
}
