#version 330
// Every vertex of a room: its place, its normal, its color, and the number of its object.
uniform mat4 p3d_ModelViewProjectionMatrix, p3d_ModelViewMatrix;
uniform float only;  // number of the one object to draw, 0 for all
in vec4 p3d_Vertex;
in vec3 p3d_Normal, tint;
in vec3 extra;  // number of the object, emission, gloss
in vec2 p3d_MultiTexCoord0;
out vec3 at, view, normal, color;
out vec2 uv;
out vec2 shine;  // emission, gloss
flat out float number;

void main() {
    at = p3d_Vertex.xyz;
    view = (p3d_ModelViewMatrix * p3d_Vertex).xyz;
    normal = p3d_Normal;
    color = tint;
    uv = p3d_MultiTexCoord0;
    number = extra.x;
    shine = extra.yz;
    bool hidden = only > 0.0 && only != number;
    gl_Position = hidden ? vec4(2, 2, 2, 1) : p3d_ModelViewProjectionMatrix * p3d_Vertex;
}
