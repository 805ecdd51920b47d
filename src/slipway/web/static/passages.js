/** Opens and closes passages; what shows them is loaded with the first. */

import { toast } from "./toast.js";
import { say } from "./words.js";

let module = null;

export async function togglePassage(...about) {
  try {
    module ??= await import("./passage.js");
  } catch {
    return toast(say("notLoaded"));
  }
  module.togglePassage(...about);
}

export const closePassage = () => module?.closePassage() ?? false;
