# The shell hook of wtd, by `wtd-client hook fish`: the variables of the worktree that the shell is in.
function __wtd_hook --on-variable PWD --on-event fish_prompt --description "The variables of the worktree"
    builtin set -l here : $DIRENV_DIFF
    # A directory that was moved or removed under the shell is another one.
    builtin test . -ef "$PWD"; and builtin set -p here $PWD
    # What fails is tried a second time, at the next prompt but not at the same one, and then no more in this directory.
    # The event of a prompt has no arguments.
    builtin set -l again later
    builtin set -q argv[1]; or builtin set again again
    if builtin test "$__wtd_here" = "later:$here"
        builtin set -g __wtd_here "$again:$here"
    else if builtin test "$__wtd_here" != "$here"; and builtin test $again = again -o "$__wtd_here" != "again:$here"
        builtin test -x @PROGRAM@; or return
        @CLIENT@ hook fish --follow $fish_pid | builtin source
        if builtin test $pipestatus[1] -eq 0 -o "$__wtd_here" = "again:$here"
            builtin set -g __wtd_here "$here"
        else
            builtin set -g __wtd_here "$again:$here"
        end
    end
end
__wtd_hook start
