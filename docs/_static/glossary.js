// A standard term set in bold shows its meaning when the pointer or the keyboard's focus is on it.
document.addEventListener("DOMContentLoaded", () => {
  for (const word of document.querySelectorAll("article strong")) {
    const means = (window.courseTerms || {})[word.textContent.trim().toLowerCase()];
    if (!means) continue;
    word.title = means;
    word.tabIndex = 0;
    word.classList.add("course-term");
  }
});
