#version 330
// Seen from a light: walls, floor and ceiling stand a little further out, so that no light creeps in along their edges.
uniform mat4 p3d_ModelViewProjectionMatrix;
uniform vec4 shell;  // the room's middle, and how many objects are its walls, floor and ceiling
in vec4 p3d_Vertex;
in vec3 extra;
out float emission;

void main() {
    emission = extra.y;
    vec3 place = extra.x <= shell.w ? shell.xyz + 1.02 * (p3d_Vertex.xyz - shell.xyz) : p3d_Vertex.xyz;
    gl_Position = p3d_ModelViewProjectionMatrix * vec4(place, 1);
}
