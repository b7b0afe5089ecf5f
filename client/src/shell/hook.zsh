# The shell hook of wtd, by `wtd-client hook zsh`: the variables of the worktree that the shell is in.
__wtd_hook() {
  \builtin emulate -LR zsh
  \builtin local here="$$:" code=
  # A directory that was moved or removed under the shell is another one.
  if [[ . -ef $PWD ]]; then here+=$PWD; fi
  here+=:${DIRENV_DIFF-}
  # What fails is tried a second time, at the next prompt but not at the same one, and then no more in this directory.
  if [[ ${__wtd_here-} == "later:$here" ]]; then
    if [[ ${1-} == prompt ]]; then \builtin typeset -g __wtd_here="again:$here"; fi
  elif [[ ${__wtd_here-} != "$here" && (${1-} == prompt || ${__wtd_here-} != "again:$here") ]]; then
    if [[ ! -x @PROGRAM@ ]] || code=$(@CLIENT@ hook zsh --follow $$) || [[ ${__wtd_here-} == "again:$here" ]]; then
      \builtin typeset -g __wtd_here="$here"
    elif [[ ${1-} == prompt ]]; then
      \builtin typeset -g __wtd_here="again:$here"
    else
      \builtin typeset -g __wtd_here="later:$here"
    fi
    \builtin eval "$code" 2>/dev/null || \builtin true
  fi
}
__wtd_prompt() {
  __wtd_hook prompt
}
# Before other functions, which may show or use the variables, and after direnv, which may bring old ones back.
() {
  \builtin emulate -LR zsh
  \builtin typeset -ga precmd_functions chpwd_functions
  if (( ! ${precmd_functions[(I)__wtd_prompt]} )); then precmd_functions=(__wtd_prompt $precmd_functions); fi
  if (( ! ${chpwd_functions[(I)__wtd_hook]} )); then chpwd_functions=(__wtd_hook $chpwd_functions __wtd_hook); fi
}
__wtd_hook
