#version 330
// What shines, such as the view in a window, throws no shadow.
in float emission;

void main() { if (emission > .8) discard; }
