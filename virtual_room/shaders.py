"""The shaders of the `shaded` profile, as (vertex, fragment) in GLSL 3.30; must not know Panda3D beyond its names of inputs."""

LIGHTS = 6
DEEPEST = 30.0  # metres

_VERTEX = """#version 330
uniform mat4 p3d_ModelViewProjectionMatrix, p3d_ModelViewMatrix;
uniform float only;  // number of the one thing to draw, 0 for all
in vec4 p3d_Vertex;
in vec3 p3d_Normal, tint, extra;
in vec2 p3d_MultiTexCoord0;
out vec3 at, view, normal, colour;
out vec2 uv, glow;
flat out float thing;

void main() {
    at = p3d_Vertex.xyz;
    view = (p3d_ModelViewMatrix * p3d_Vertex).xyz;
    normal = p3d_Normal;
    colour = tint;
    uv = p3d_MultiTexCoord0;
    thing = extra.x;
    glow = extra.yz;
    gl_Position = only > 0.0 && only != thing ? vec4(2, 2, 2, 1) : p3d_ModelViewProjectionMatrix * p3d_Vertex;
}
"""

# Light falls as in `light`, with a shadow map for the first light and occlusion from the cells around a point.
_FRAGMENT = """#version 330
const int LIGHTS = %d;
uniform sampler2D p3d_Texture0;
uniform sampler3D grid;
uniform sampler2DShadow shadow;
uniform mat4 to_lamp;
uniform mat4 p3d_ViewMatrixInverse;
uniform vec3 light_at[LIGHTS], light_normal[LIGHTS], light_colour[LIGHTS];
uniform float light_area[LIGHTS];
uniform int lights;
uniform vec2 soft;  // of the shadow map: radius of the blur, and metres that a grazed surface is lifted by, a metre of distance
uniform vec3 ambient, grid_origin, grid_size;
uniform vec2 scale;
in vec3 at, view, normal, colour;
in vec2 uv, glow;
flat in float thing;
layout(location = 0) out vec4 picture;
layout(location = 1) out vec4 number;
layout(location = 2) out vec4 deep;
layout(location = 3) out vec4 facet;

float taken(vec3 p, float lod) { return textureLod(grid, (p - grid_origin) / grid_size, lod).r; }

float open_air(vec3 n) {
    float a = taken(at + .07 * n, 0.0), b = taken(at + .15 * n, 1.0), c = taken(at + .33 * n, 2.0), d = taken(at + .7 * n, 3.0);
    return (1.0 - .55 * a) * (1.0 - .5 * b) * (1.0 - .55 * c) * (1.0 - .5 * d);
}

float lit(vec3 n) {
    bool sun = light_area[0] == 0.0;
    vec3 way = sun ? -light_normal[0] : light_at[0] - at;
    float far = length(way), steep = dot(way, n) / far, slope = sqrt(max(0.0, 1.0 - steep * steep));
    vec4 p = to_lamp * vec4(at + (.012 + soft.y * far * slope) * n, 1);
    if (p.w <= .05 || any(greaterThan(abs(p.xy), vec2(p.w)))) return 1.0;
    vec3 q = p.xyz / p.w * .5 + .5;
    q.z -= .0002;
    float turn = 6.2832 * fract(52.98 * fract(dot(gl_FragCoord.xy, vec2(.0671, .00584))));
    vec2 r = soft.x * vec2(cos(turn), sin(turn)), s = vec2(-r.y, r.x);
    return .25 * (texture(shadow, q + vec3(.35 * r, 0)) + texture(shadow, q - vec3(.6 * r, 0)) + texture(shadow, q + vec3(.8 * s, 0)) + texture(shadow, q - vec3(s, 0)));
}

void main() {
    vec3 n = normalize(normal), eye = normalize(p3d_ViewMatrixInverse[3].xyz - at);
    float open = open_air(n), clear = lit(n);  // not in the loop, where software would take it for every light
    vec3 light = ambient * open * (.45 + .15 * n.z), shine = vec3(0);
    for (int i = 0; i < lights; i++) {
        bool sun = light_area[i] == 0.0;
        vec3 way = sun ? -light_normal[i] : light_at[i] - at;
        float square = dot(way, way);
        way *= inversesqrt(square + 1e-6);
        float facing = dot(way, n);
        float leaving = dot(light_normal[i], light_normal[i]) > .5 ? max(0.0, -dot(way, light_normal[i])) : .45;
        float arriving = sun ? 1.0 : leaving * light_area[i] / (3.1416 * square + light_area[i] * .7);
        arriving *= i > 0 ? .2 + .7 * open : sun ? clear : .15 * open + .95 * clear;
        light += arriving * light_colour[i] * max(0.0, sun ? facing : facing * .85 + .15);
        shine += arriving * light_colour[i] * pow(max(0.0, dot(n, normalize(way + eye))), 40.0);
    }
    float edge = pow(1.0 - max(0.0, dot(n, eye)), 4.0);
    vec3 paint = colour * texture(p3d_Texture0, uv).rgb;
    vec3 linear = pow(paint, vec3(2.2)) * (light * scale.x + glow.x) + glow.y * scale.x * (shine * .6 + edge * .25 * light);
    picture = vec4(pow(clamp(linear * scale.y, 0.0, 1.0), vec3(1 / 2.2)), 1);
    number = vec4(mod(thing, 256.0), floor(thing / 256.0), 0, 255) / 255.0;
    vec3 plane = normalize(cross(dFdx(view), dFdy(view)));
    plane *= -sign(dot(plane, view)) * vec3(1, -1, -1);
    float far = floor(-view.z / %g * 16777216.0);
    deep = vec4(floor(far / 65536.0), mod(floor(far / 256.0), 256.0), mod(far, 256.0), plane.z > 0.0 ? 255.0 : 0.0) / 255.0;
    vec2 fine = floor((plane.xy + 1.0) * 32767.0 + .5);
    facet = vec4(floor(fine.x / 256.0), mod(fine.x, 256.0), floor(fine.y / 256.0), mod(fine.y, 256.0)) / 255.0;
}
""" % (LIGHTS, DEEPEST)

# Seen from a light: walls, floor and ceiling stand a little further out, so that no light creeps in along their edges.
_FROM_LIGHT = """#version 330
uniform mat4 p3d_ModelViewProjectionMatrix;
uniform vec4 shell;  // the room's middle, and how many things are its walls, floor and ceiling
in vec4 p3d_Vertex;
in vec3 extra;
out float glow;

void main() {
    glow = extra.y;
    vec3 place = extra.x <= shell.w ? shell.xyz + 1.02 * (p3d_Vertex.xyz - shell.xyz) : p3d_Vertex.xyz;
    gl_Position = p3d_ModelViewProjectionMatrix * vec4(place, 1);
}
"""

# What shines, such as the view in a window, throws no shadow.
_NOTHING = """#version 330
in float glow;
void main() { if (glow > .8) discard; }
"""

ROOM, DEPTH = (_VERTEX, _FRAGMENT), (_FROM_LIGHT, _NOTHING)
