/* Requests from outside, looked at between steps. */
#include <signal.h>
#include <string.h>

#include "run/signals.h"

static volatile sig_atomic_t stop_requested, save_requested;

static void on_signal(int number) {
  if (number == SIGUSR2) {
    save_requested = 1;
  } else {
    stop_requested = 1;
  }
}

void fn_signals_install(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  const int stops[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
  for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++)
    sigaction(stops[i], &action, NULL);
  signal(SIGXFSZ, SIG_IGN); // a full quota is an error of write(), not the end of the run
  signal(SIGPIPE, SIG_IGN);
}

bool fn_stop_requested(void) {
  return stop_requested != 0;
}

bool fn_save_requested(void) {
  return save_requested != 0;
}

void fn_save_done(void) {
  save_requested = 0;
}
