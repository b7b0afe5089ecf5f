# The shell hook of wtd, by `wtd-client hook bash`: the variables of the worktree that the shell is in.
__wtd_hook() {
  \builtin local ended=$? here=$$: code=
  # A directory that was moved or removed under the shell is another one.
  if [[ . -ef ${PWD-} ]]; then here+=$PWD; fi
  here+=:${DIRENV_DIFF-}
  # What fails is tried a second time, at the next prompt but not at the same one, and then no more in this directory.
  if [[ ${__wtd_here-} == "later:$here" ]]; then
    if [[ ${1-} == prompt ]]; then __wtd_here=again:$here; fi
  elif [[ ${__wtd_here-} != "$here" && (${1-} == prompt || ${__wtd_here-} != "again:$here") ]]; then
    if [[ ! -x @PROGRAM@ ]] || code=$(@CLIENT@ hook bash --follow $$) || [[ ${__wtd_here-} == "again:$here" ]]; then
      __wtd_here=$here
    elif [[ ${1-} == prompt ]]; then
      __wtd_here=again:$here
    else
      __wtd_here=later:$here
    fi
    \builtin eval "$code" 2>/dev/null || \builtin true
  fi
  [[ $- == *e* ]] || \builtin return "$ended"
}
# Before other prompt commands, which may show or use the variables, and after direnv, which may bring old ones back.
if [[ ${PROMPT_COMMAND[*]-} != *__wtd_hook* ]]; then
  PROMPT_COMMAND="__wtd_hook prompt"${PROMPT_COMMAND:+";$PROMPT_COMMAND"$'\n'__wtd_hook}
fi
# bash tells of a change of directory at its next prompt only, which is too late for `cd ../search && make up`. Whoever has
# a `cd` of their own keeps it.
for __wtd_name in cd pushd popd; do
  if [[ $(\builtin type -t "$__wtd_name") == builtin ]]; then
    \builtin eval "function $__wtd_name { \\builtin $__wtd_name \"\$@@\" && __wtd_hook; }"
  fi
done
\builtin unset -v __wtd_name
__wtd_hook
