KILLS=50 . "$(dirname "$0")/run_kill.sh"
